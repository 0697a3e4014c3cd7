package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"chancery/internal/errs"
	"chancery/prove"
	"chancery/wall"
	"chancery/zone"
)

func proveCommand() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:     "prove",
		Short:   "Check the promises live, and show the evidence",
		GroupID: "start",
		Long: `Attacks the zone in a directory and prints what it did and saw, a line for each
check: it gives wrong shares, plants canaries and searches the raw disk for them,
tries to break out of every cell, stands in the front door's place, kills a cell in
the middle of writes, and puts back what was destroyed.

What it needs it makes in a scratch organization of its own, and removes it. The
other organizations are only probed from inside for ways out; nothing of theirs is
read or changed. Run it as the operator, on the zone's machine.

The exit status is 1 if a promise is broken. "not enforced on this host" tells of
something that this kernel lacks.`,
		Args: cobra.NoArgs,
	}
	dir := dirFlag(cmd)
	format := outputFlag(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the evidence of every check")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		settings, err := zone.Load(*dir)
		if err != nil {
			return err
		}
		endpoints, err := zone.LoadEndpoints(*dir)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		o := prove.Options{
			Dir: *dir, S3: endpoints.S3, API: endpoints.API, Domain: settings.Domain, PID: endpoints.PID,
			OperatorKubeconfig: zone.OperatorKubeconfig(*dir), Zone: settings.Name, Version: version,
			Probe: func(ctx context.Context, org string, in wall.Probe) (wall.ProbeReport, error) {
				return zone.Probe(ctx, *dir, org, in)
			},
			Seal: func(ctx context.Context, org string) error {
				_, err := zone.Seal(ctx, *dir, org)
				return err
			},
			CellPID: func(org string) (int, error) { return zone.CellPID(cmd.Context(), *dir, org) },
		}
		if *format == "text" {
			fmt.Fprintf(out, "Zone %s, version %s. Each line: promise, outcome, what was done, what was seen.\n", settings.Name, version)
			o.Each = func(f prove.Finding) { prove.Print(out, f, verbose) }
		}
		report, err := prove.Run(cmd.Context(), o)
		if *format == "json" {
			if err := printJSON(out, report); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if n := report.Broken(); n > 0 {
			return errs.New(errs.Internal, "prove", "%d checks found a promise broken", n)
		}
		if *format == "text" {
			fmt.Fprintln(out, "No promise was found broken.")
		}
		return nil
	}
	return cmd
}
