package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"chancery/zone"
)

func zoneCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "zone",
		Short:   "Make and run a zone: one installation in one data centre",
		GroupID: "operator",
	}
	cmd.AddCommand(zoneInit(), zoneServe())
	return cmd
}

func zoneInit() *cobra.Command {
	s := zone.Settings{}
	cmd := &cobra.Command{
		Use:   "init --name NAME --jurisdiction CC --domain DOMAIN",
		Short: "Make a zone's directory",
		Long: `Makes the directory of a zone. Clients will reach an organization ORG as
s3.ORG.DOMAIN and api.ORG.DOMAIN, and its custodians as seal.ORG.DOMAIN: point
*.DOMAIN and *.ORG.DOMAIN at this machine. Organizations make their certificates
themselves, inside; the zone holds none of their keys.`,
		Example: `  chancery zone init --dir /srv/chancery --name lu-1 --jurisdiction LU --domain zone.example`,
		Args:    cobra.NoArgs,
	}
	dir := dirFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&s.Name, "name", "", "the zone's name, a DNS label such as lu-1")
	f.StringVar(&s.Jurisdiction, "jurisdiction", "", "the country under whose law it stands, ISO 3166-1, such as LU")
	f.StringVar(&s.Domain, "domain", "", "the DNS domain of the zone, such as zone.example")
	f.StringVar(&s.S3Listen, "s3-listen", ":9000", "address of the S3 port (port 0: a free one at each start)")
	f.StringVar(&s.APIListen, "api-listen", ":9443", "address of the port of the organizations' API servers and seal services")
	f.StringVar(&s.OperatorListen, "operator-listen", "127.0.0.1:9444", "address of the operator's API server; keep it off the customers' network")
	f.StringVar(&s.DefaultOrganization, "default-organization", "", "who answers clients that name no server (they connect to an IP address)")
	for _, name := range []string{"name", "jurisdiction", "domain"} {
		_ = cmd.MarkFlagRequired(name) // the flag exists
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := zone.Init(*dir, s); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Made zone %s in %s. Next: chancery zone serve --dir %s\n", s.Name, *dir, *dir)
		return nil
	}
	return cmd
}

func zoneServe() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a zone in the foreground",
		Long: `Runs the zone: the front door, the cells of its organizations, and the operator's
API server. Every cell starts sealed. Interrupt (Ctrl-C, SIGTERM) stops it cleanly.`,
		Args: cobra.NoArgs,
	}
	dir := dirFlag(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		return zone.Serve(cmd.Context(), *dir, zone.Options{
			Version: version,
			Log:     logger(cmd.ErrOrStderr(), verbose),
			Ready: func(r zone.Running) error {
				fmt.Fprintf(out, "Zone %s (%s) serves.\n", r.Settings.Name, r.Settings.Jurisdiction)
				fmt.Fprintf(out, "  S3            %s   s3.ORG.%s\n", r.Endpoints.S3, r.Settings.Domain)
				fmt.Fprintf(out, "  API and seal  %s   api.ORG.%s, seal.ORG.%s\n", r.Endpoints.API, r.Settings.Domain, r.Settings.Domain)
				fmt.Fprintf(out, "  operator      https://%s   KUBECONFIG=%s\n", r.Endpoints.Operator, r.OperatorKubeconfig)
				fmt.Fprintf(out, "Next: chancery org create NAME --dir %s --quorum K --custodian NAME=FILE …\n", *dir)
				return nil
			},
		})
	}
	return cmd
}

// logger writes readable lines; warnings and errors only, unless verbose.
func logger(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
