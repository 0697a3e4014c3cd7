package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chancery/api/v1alpha1"
	"chancery/client"
	"chancery/custodian"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/wall"
	"chancery/zone"
)

func orgCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "org",
		Short:   "Create, unseal and seal organizations",
		GroupID: "operator",
		Long: `An organization is a customer with a dedicated, sealed environment (its cell).
The operator creates and seals it; only a quorum of its custodians unseals it.`,
	}
	cmd.AddCommand(orgCreate(), orgUnseal(), orgSeal(), orgDelete())
	return cmd
}

// operator opens the operator's API server of the zone in a directory on this machine.
func operator(dir string) (*client.Operator, error) {
	if _, err := zone.LoadEndpoints(dir); err != nil {
		return nil, err
	}
	return client.OpenOperator(zone.OperatorKubeconfig(dir))
}

func orgCreate() *cobra.Command {
	var (
		quorum      int
		named       []string
		shares      string
		unprotected bool
		dryRun      bool
	)
	cmd := &cobra.Command{
		Use:   "create NAME --quorum K --custodian NAME=FILE …",
		Short: "Create an organization (as the operator)",
		Long: `Creates an organization. Its cell makes the root key inside, splits it so that any
K of the custodians can rebuild it, encrypts each share to its custodian's
recipient, and forgets the key: it then exists nowhere. The organization is sealed
until K custodians unseal it.

FILE holds a custodian's recipient (or his identity file, of which only the
public half is read).`,
		Example: `  chancery org create health --quorum 2 --custodian alice=alice.recipient --custodian bob=bob.recipient --custodian carol=carol.recipient`,
		Args:    cobra.ExactArgs(1),
	}
	dir := dirFlag(cmd)
	f := cmd.Flags()
	f.IntVar(&quorum, "quorum", 0, "how many custodians must come together to unseal")
	f.StringArrayVar(&named, "custodian", nil, "a custodian, NAME=FILE; repeat for each")
	f.StringVar(&shares, "shares", "", "also write each custodian's encrypted share to this directory, for safe keeping")
	f.BoolVar(&unprotected, "unprotected", false, "let the organization be deleted without clearing its protection first")
	f.BoolVar(&dryRun, "dry-run", false, "check everything, create nothing")
	_ = cmd.MarkFlagRequired("quorum")
	_ = cmd.MarkFlagRequired("custodian")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, out, name := cmd.Context(), cmd.OutOrStdout(), args[0]
		custodians, err := readCustodians(named)
		if err != nil {
			return err
		}
		op, err := operator(*dir)
		if err != nil {
			return err
		}
		if err := op.CreateOrganization(ctx, name, quorum, custodians, !unprotected, dryRun); err != nil {
			return err
		}
		if dryRun {
			fmt.Fprintf(out, "Organization %s could be created: %d of %d custodians. Nothing was done.\n", name, quorum, len(custodians))
			return nil
		}
		fmt.Fprintf(out, "Creating organization %s: its cell starts and makes its root key …\n", name)
		org, err := op.WaitOrganization(ctx, name, v1alpha1.OrganizationSealed, v1alpha1.OrganizationUnsealed)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "Organization %s is there, and sealed. Any %d of these custodians unseal it: %s.\n", name, quorum, strings.Join(custodianNames(custodians), ", "))
		fmt.Fprintf(out, "Identity of the cell (tell it to the custodians): sha256:%s\n", org.Status.IdentityPin)
		if shares != "" {
			if err := writeShares(cmd, *dir, name, custodians, shares); err != nil {
				return err
			}
		}
		fmt.Fprintf(out, "Next, by each custodian on his own machine: chancery org unseal %s --identity FILE\n", name)
		return nil
	}
	return cmd
}

func readCustodians(named []string) ([]v1alpha1.Custodian, error) {
	var out []v1alpha1.Custodian
	for _, arg := range named {
		name, file, ok := strings.Cut(arg, "=")
		if !ok || !wall.IsLabel(name) || file == "" {
			return nil, errs.New(errs.Invalid, "", "--custodian %q: want NAME=FILE, where NAME is a DNS label such as alice", arg)
		}
		recipient, err := custodian.ReadRecipient(file)
		if err != nil {
			return nil, fmt.Errorf("--custodian %s: %w", name, err)
		}
		out = append(out, v1alpha1.Custodian{Name: name, Recipient: recipient})
	}
	return out, nil
}

func custodianNames(cs []v1alpha1.Custodian) []string {
	var names []string
	for _, c := range cs {
		names = append(names, c.Name)
	}
	return names
}

func writeShares(cmd *cobra.Command, dir, org string, custodians []v1alpha1.Custodian, to string) error {
	seal, err := (&where{dir: dir}).sealClient(org)
	if err != nil {
		return err
	}
	if err := files.MkdirAll(files.OS(), to); err != nil {
		return err
	}
	for _, c := range custodians {
		share, err := seal.ShareFile(cmd.Context(), c.Name)
		if err != nil {
			return err
		}
		path := filepath.Join(to, org+"-"+c.Name+".share.age")
		if err := files.WriteFile(files.OS(), path, share); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Wrote %s (only %s can open it)\n", path, c.Name)
	}
	return nil
}

func orgUnseal() *cobra.Command {
	var identity string
	cmd := &cobra.Command{
		Use:     "unseal NAME --identity FILE",
		Short:   "Give one custodian's share (as a custodian)",
		GroupID: "",
		Long: `Gives one custodian's share of the root key to the organization's cell. When the
quorum is there the organization is unsealed. Run it on the custodian's own
machine, with --endpoint and --domain; or with --dir on the zone's machine.

The share goes out only to the cell that it was made for: the share itself names
the cell's TLS key, and the zone in between sees ciphertext.`,
		Example: `  chancery org unseal health --identity alice.identity --endpoint zone.example:9443 --domain zone.example`,
		Args:    cobra.ExactArgs(1),
	}
	at := whereFlags(cmd)
	format := outputFlag(cmd)
	cmd.Flags().StringVar(&identity, "identity", "", "the custodian's identity file")
	_ = cmd.MarkFlagRequired("identity")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := custodian.ReadIdentityFile(identity)
		if err != nil {
			return err
		}
		seal, err := at.sealClient(args[0])
		if err != nil {
			return err
		}
		result, err := seal.Unseal(cmd.Context(), id)
		if err != nil && result.Sent {
			return fmt.Errorf("the share of %s was taken (organization %s: %s), but this machine cannot remember the cell: %w", result.Custodian, args[0], result.Status.State, err)
		}
		if err != nil {
			return err
		}
		if *format == "json" {
			return printJSON(cmd.OutOrStdout(), result)
		}
		out, s := cmd.OutOrStdout(), result.Status
		switch {
		case !result.Sent:
			fmt.Fprintf(out, "Organization %s is unsealed already; nothing was sent.\n", args[0])
		case s.State == wall.Unsealed:
			fmt.Fprintf(out, "The share of %s was taken. Organization %s is unsealed.\n", result.Custodian, args[0])
		case result.Repeated:
			fmt.Fprintf(out, "%s had given his share already; it counts once: %d of %d. Organization %s is still sealed.\n", result.Custodian, s.SharesGiven, s.Quorum, args[0])
		default:
			fmt.Fprintf(out, "The share of %s was taken: %d of %d. Organization %s is still sealed.\n", result.Custodian, s.SharesGiven, s.Quorum, args[0])
		}
		return nil
	}
	return cmd
}

func orgSeal() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "seal NAME",
		Short: "Seal an organization at once (as the operator)",
		Long: `Seals an organization: its cell drops the root key and every key under it. Its
clients get the error Sealed until a quorum of custodians unseals it again.
Sealing takes something away from nobody but the clients; the operator, who could
as well cut the power, may do it, and cannot undo it.`,
		Args: cobra.ExactArgs(1),
	}
	dir := dirFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		status, err := zone.Seal(cmd.Context(), *dir, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Organization %s is %s.\n", args[0], strings.ToLower(string(status.State)))
		return nil
	}
	return cmd
}

func orgDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME --yes",
		Short: "Delete an organization that is not protected, with all its data (as the operator)",
		Long: `Deletes an organization's cell and all its data, for ever. An organization is
protected unless it was created with --unprotected; its protection is taken away
with: kubectl patch organization NAME --type merge -p '{"spec":{"protected":false}}'`,
		Args: cobra.ExactArgs(1),
	}
	dir := dirFlag(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete; without it this is a dry run")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		op, err := operator(*dir)
		if err != nil {
			return err
		}
		org, err := op.Organization(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if !yes && (org.Spec.Protected == nil || *org.Spec.Protected) {
			fmt.Fprintf(cmd.OutOrStdout(), "Organization %s is protected: it would not be deleted, and --yes would be refused. Nothing was done.\n", org.Name)
			return nil
		}
		if !yes {
			fmt.Fprintf(cmd.OutOrStdout(), "Would delete organization %s (%s, made %s) and all its data. Say --yes to do it. Nothing was done.\n",
				org.Name, org.Status.State, org.CreationTimestamp.UTC().Format(time.RFC3339))
			return nil
		}
		if err := op.DeleteOrganization(cmd.Context(), args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Organization %s is gone.\n", args[0])
		return nil
	}
	return cmd
}
