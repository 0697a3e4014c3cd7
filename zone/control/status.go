package control

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"chancery/api/v1alpha1"
	"chancery/internal/apiserver/controllers"
	"chancery/wall"
	"chancery/zone/cells"
)

// Reasons of the Ready condition; events carry them too.
const (
	reasonUnsealed  = "Unsealed"
	reasonSealed    = "Sealed"
	reasonStopped   = "Stopped"
	reasonStarting  = "Starting"
	reasonSilent    = "Silent"
	reasonCrashed   = "Crashed"
	reasonRefused   = "Refused"
	reasonDestroyed = "Destroyed"
	reasonDataLost  = "DataLost"
	reasonIdentity  = "IdentityChanged"
	reasonProtected = "Protected"
)

func condition(o *v1alpha1.Organization, kind string, value bool, reason, message string) {
	status := metav1.ConditionFalse
	if value {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: o.Generation})
}

func stopped(o *v1alpha1.Organization) controllers.Outcome {
	o.Status.State, o.Status.Shares, o.Status.Started = v1alpha1.OrganizationStopped, "", nil
	condition(o, v1alpha1.ConditionSealed, true, reasonStopped, "A cell that does not run holds no key.")
	return controllers.Outcome{Reason: reasonStopped, Message: "The cell does not run, as spec.desiredState says."}
}

// notAnswering tells about a cell that has not answered yet, or no longer does.
func notAnswering(o *v1alpha1.Organization, st cells.Status) controllers.Outcome {
	o.Status.Restarts, o.Status.Shares = int64(st.Restarts), ""
	switch st.Phase {
	case cells.Waiting:
		o.Status.State = v1alpha1.OrganizationPending
		condition(o, v1alpha1.ConditionSealed, true, reasonCrashed, "A cell that does not run holds no key.")
		return controllers.Outcome{Reason: reasonCrashed, Message: "The cell ended and is started again: " + st.LastExit}
	case cells.Silent:
		// It may well be unsealed: the last state that it told stands.
		return controllers.Outcome{Reason: reasonSilent, Message: "The cell runs and does not answer."}
	}
	o.Status.State = v1alpha1.OrganizationPending
	return controllers.Outcome{Reason: reasonStarting, Message: "The cell is starting.", Quiet: true}
}

// dataLost is a cell that has forgotten the root key that it once made. To let
// it make another would hide that every byte of the organization is lost.
func dataLost(o *v1alpha1.Organization) controllers.Outcome {
	o.Status.State = v1alpha1.OrganizationUninitialized
	return controllers.Outcome{
		Reason:  reasonDataLost,
		Message: "The cell's data are gone: it had a root key and knows of none. Restore its directory from a backup; or delete the organization and make it anew.",
	}
}

// mirror puts what a cell told into the status.
func mirror(o *v1alpha1.Organization, st cells.Status, cell wall.Status) controllers.Outcome {
	s := &o.Status
	s.Restarts, s.Version, s.Shares = int64(st.Restarts), cell.Version, ""
	if !st.Started.IsZero() {
		at := metav1.NewTime(st.Started.Truncate(1e9))
		s.Started = &at
	}
	s.Unenforced = nil
	for _, m := range cell.Enforced {
		if !m.Enforced {
			s.Unenforced = append(s.Unenforced, m.Name)
		}
	}
	if cell.IdentityPin != "" && s.IdentityPin != "" && cell.IdentityPin != s.IdentityPin {
		// Custodians' clients hold the old pin and refuse the cell. The old one stays in the status.
		s.State = v1alpha1.OrganizationState(cell.State)
		return controllers.Outcome{Reason: reasonIdentity, Message: fmt.Sprintf("The cell shows another sealed identity (%s) than it was made with: its data were replaced.", cell.IdentityPin)}
	}
	if cell.IdentityPin != "" {
		s.IdentityPin = cell.IdentityPin
	}
	if cell.CACertificate != "" {
		s.CACertificate = cell.CACertificate
	}
	if cell.State != wall.Uninitialized {
		condition(o, v1alpha1.ConditionInitialized, true, "RootKeyMade", "The root key was made inside the cell and split among the custodians.")
	}
	switch cell.State {
	case wall.Unsealed:
		s.State = v1alpha1.OrganizationUnsealed
		condition(o, v1alpha1.ConditionSealed, false, reasonUnsealed, "A quorum of custodians has unsealed the organization.")
		return controllers.Outcome{Ready: true, Reason: reasonUnsealed, Message: "The organization serves."}
	case wall.SealedState:
		s.State = v1alpha1.OrganizationSealed
		s.Shares = fmt.Sprintf("%d/%d", cell.SharesGiven, cell.Quorum)
		condition(o, v1alpha1.ConditionSealed, true, reasonSealed, "The root key is not in memory.")
		return controllers.Outcome{Reason: reasonSealed, Message: fmt.Sprintf("%d of %d custodians must unseal the organization.", cell.Quorum, len(cell.Custodians))}
	case wall.Destroyed:
		s.State = v1alpha1.OrganizationDestroyed
		condition(o, v1alpha1.ConditionSealed, true, reasonDestroyed, "The root key was destroyed.")
		return controllers.Outcome{Reason: reasonDestroyed, Message: "The root key was destroyed: the organization's data can never be read again."}
	}
	s.State = v1alpha1.OrganizationUninitialized
	return controllers.Outcome{Reason: reasonStarting, Message: "The organization has no root key yet.", Quiet: true}
}
