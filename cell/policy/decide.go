package policy

import (
	"context"
	"strings"

	"chancery/internal/errs"
)

// New returns the first-step Decider:
//
//   - an access key of a project may do everything with its own project's
//     resources, and nothing elsewhere;
//   - the administrator may do everything with the organization's resources
//     (actions "chancery:…"), and nothing in S3: administering is not reading;
//   - anonymous callers, unknown actions and half-filled requests are denied.
//
// There are no roles and no bucket policies yet.
func New() Decider { return firstStep{ready: true} }

// firstStep denies while it is zero.
type firstStep struct{ ready bool }

const (
	servicesS3           = "s3:"
	servicesOrganization = "chancery:"
)

// Decide implements Decider. Every refusal is errs.Denied with the code AccessDenied.
func (d firstStep) Decide(_ context.Context, r Request) error {
	if d.ready && r.Resource != "" && allowed(r) {
		return nil
	}
	return errs.Coded(errs.Denied, "policy.Decide", "AccessDenied", "Access Denied")
}

func allowed(r Request) bool {
	switch {
	case named(r.Action, servicesS3):
		// Both empty is not "the same project".
		return r.Principal.Project != "" && r.Principal.User != "" && r.Principal.Project == r.Project
	case named(r.Action, servicesOrganization):
		return r.Principal.Administrator && r.Principal.User != ""
	}
	return false
}

// named reports whether the action is of the service and has a name of its own.
func named(action, service string) bool {
	return strings.HasPrefix(action, service) && len(action) > len(service)
}
