package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chancery/api/v1alpha1"
	"chancery/wall"
	"chancery/zone"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the zone and its organizations",
		GroupID: "operator",
		Args:    cobra.NoArgs,
	}
	dir := dirFlag(cmd)
	format := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		endpoints, err := zone.LoadEndpoints(*dir)
		if err != nil {
			return err
		}
		op, err := operator(*dir)
		if err != nil {
			return err
		}
		z, err := op.Zone(cmd.Context())
		if err != nil {
			return err
		}
		orgs, err := op.Organizations(cmd.Context())
		if err != nil {
			return err
		}
		for i := range orgs {
			asOfNow(cmd.Context(), *dir, &orgs[i])
		}
		out := cmd.OutOrStdout()
		if *format == "json" {
			return printJSON(out, struct {
				Zone          *v1alpha1.Zone          `json:"zone"`
				Endpoints     zone.Endpoints          `json:"endpoints"`
				Organizations []v1alpha1.Organization `json:"organizations"`
			}{z, endpoints, orgs})
		}
		fmt.Fprintf(out, "Zone %s (%s), version %s\n  S3 %s, API and seal %s, operator %s\n", z.Name, z.Spec.Jurisdiction, z.Status.Version, endpoints.S3, endpoints.API, endpoints.Operator)
		if z.Status.Demonstration {
			fmt.Fprintln(out, "  DEMONSTRATION: a custodian's identity lies beside the data")
		}
		if len(orgs) == 0 {
			fmt.Fprintln(out, "No organizations. Next: chancery org create NAME --quorum K --custodian NAME=FILE …")
			return nil
		}
		w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "ORGANIZATION\tSTATE\tSHARES\tRESTARTS\tNOT ENFORCED HERE")
		for _, o := range orgs {
			unenforced := "-"
			if len(o.Status.Unenforced) > 0 {
				unenforced = strings.Join(o.Status.Unenforced, ", ")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", o.Name, o.Status.State, orDash(o.Status.Shares), o.Status.Restarts, unenforced)
		}
		return w.Flush()
	}
	return cmd
}

// askTime bounds how long status waits for one cell.
const askTime = 2 * time.Second

// asOfNow corrects an organization's state by what its cell says. The stored
// object is some seconds old, and after a restart of the zone older than that: it
// would still say Unsealed.
func asOfNow(ctx context.Context, dir string, o *v1alpha1.Organization) {
	switch o.Status.State {
	case v1alpha1.OrganizationSealed, v1alpha1.OrganizationUnsealed:
	default:
		return // being made, or ended: the cell does not know of it
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	s, err := zone.CellStatus(ctx, dir, o.Name)
	switch {
	case err != nil:
		o.Status.State, o.Status.Shares = v1alpha1.OrganizationPending, "" // its cell does not answer
	case s.State == wall.Unsealed:
		o.Status.State, o.Status.Shares = v1alpha1.OrganizationUnsealed, ""
	case s.State == wall.SealedState:
		o.Status.State, o.Status.Shares = v1alpha1.OrganizationSealed, fmt.Sprintf("%d/%d", s.SharesGiven, s.Quorum)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
