package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"chancery/custodian"
	"chancery/internal/apiserver/kubeconfig"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/zone"
)

func kubeconfigCommand() *cobra.Command {
	var org, identity, out string
	cmd := &cobra.Command{
		Use:     "kubeconfig",
		Short:   "Write the kubeconfig of the operator, or of an organization's administrator",
		GroupID: "customer",
		Long: `Without --org: prints the operator's kubeconfig, from the zone's directory.

With --org and a custodian's --identity: fetches the organization's first
administrator credential from its cell. It lies there encrypted to the custodians;
the operator, who keeps the disk, cannot read it. The organization may be sealed.`,
		Example: `  chancery kubeconfig --dir /srv/chancery > operator.kubeconfig
  chancery kubeconfig --org health --identity alice.identity --endpoint zone.example:9443 --domain zone.example --out health.kubeconfig`,
		Args: cobra.NoArgs,
	}
	at := whereFlags(cmd)
	cmd.Flags().StringVar(&org, "org", "", "the organization; without it, the operator")
	cmd.Flags().StringVar(&identity, "identity", "", "a custodian's identity file (with --org)")
	cmd.Flags().StringVar(&out, "out", "", "file to write, mode 0600 (default: standard output)")
	cmd.MarkFlagsRequiredTogether("org", "identity")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var body []byte
		var err error
		if org == "" {
			body, err = operatorKubeconfig(at)
		} else {
			body, err = organizationKubeconfig(cmd, at, org, identity)
		}
		if err != nil {
			return err
		}
		if out != "" {
			return files.WriteFile(files.OS(), out, body)
		}
		_, err = cmd.OutOrStdout().Write(body)
		return err
	}
	return cmd
}

func operatorKubeconfig(at *where) ([]byte, error) {
	if at.endpoint != "" {
		return nil, errs.New(errs.Invalid, "", "the operator's kubeconfig lies in the zone's directory alone: run this there, with --dir")
	}
	dir := at.dir
	if dir == "" {
		dir = defaultDir()
	}
	if _, err := zone.LoadEndpoints(dir); err != nil {
		return nil, err
	}
	return os.ReadFile(zone.OperatorKubeconfig(dir))
}

func organizationKubeconfig(cmd *cobra.Command, at *where, org, identity string) ([]byte, error) {
	id, err := custodian.ReadIdentityFile(identity)
	if err != nil {
		return nil, err
	}
	seal, err := at.sealClient(org)
	if err != nil {
		return nil, err
	}
	credential, err := seal.Bootstrap(cmd.Context(), id)
	if err != nil {
		return nil, fmt.Errorf("the credential of organization %s: %w", org, err)
	}
	endpoint, domain, err := at.resolve()
	if err != nil {
		return nil, err
	}
	return kubeconfig.Marshal(organizationConfig(org, endpoint, domain, credential))
}

// organizationConfig is the kubeconfig of an organization behind a front door's API address.
func organizationConfig(org, endpoint, domain string, c custodian.Credential) kubeconfig.Config {
	return kubeconfig.Config{
		Name:          org,
		Server:        "https://" + endpoint,
		CA:            []byte(c.CACertificate),
		Token:         c.Token,
		TLSServerName: "api." + org + "." + domain,
	}
}
