package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"chancery/api/v1alpha1"
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

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
