// Command chancery is the one binary of a sovereign cloud that can be unplugged:
// the operator's zone, each organization's cell, the custodian's and the
// administrator's tools, and the proofs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"chancery/cell"
	"chancery/internal/errs"
	"chancery/internal/sandbox"
)

// version is set at build time (-ldflags "-X main.version=…").
var version = "devel"

// errSilent ends with status 1 after the command has said all there is to say.
var errSilent = errors.New("")

func main() {
	// A cell is this binary again, in its own namespaces. It must not run a
	// line of the command-line program before it has locked itself down.
	if len(os.Args) > 1 && os.Args[1] == sandbox.Subcommand {
		os.Exit(cell.Main(version))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	if err := root.ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintln(os.Stderr, "chancery:", explain(err))
		}
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "chancery",
		Short: "A sovereign cloud that can be unplugged",
		Long: `Chancery gives each customer of a data centre a dedicated, sealed environment:
S3 object storage and keys today. It needs no Internet. Whoever runs the
machines cannot read what is inside.

Begin with a demonstration, ready for any S3 client:

  chancery up --dir ./data

For real, the operator makes a zone, custodians make identities on their own
machines, and an organization is unsealed by a quorum of them:

  chancery zone init --dir /srv/chancery --name lu-1 --jurisdiction LU --domain zone.example
  chancery zone serve --dir /srv/chancery
  chancery custodian keygen --out alice.identity
  chancery org create health --quorum 2 --custodian alice=FILE --custodian bob=FILE --custodian carol=FILE
  chancery org unseal health --identity alice.identity

And anyone can check the promises:

  chancery prove --dir /srv/chancery`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	root.AddGroup(
		&cobra.Group{ID: "start", Title: "Start here:"},
		&cobra.Group{ID: "operator", Title: "The operator's commands:"},
		&cobra.Group{ID: "customer", Title: "The organization's commands:"},
	)
	root.AddCommand(upCommand(), zoneCommand(), orgCommand(), custodianCommand(), kubeconfigCommand(), statusCommand(), proveCommand())
	return root
}

// explain gives an error for a person: its own words, and for some kinds the next step.
func explain(err error) string {
	switch errs.KindOf(err) {
	case errs.Sealed:
		return err.Error() + "\n  The organization is sealed. A quorum of its custodians opens it: chancery org unseal ORG --identity FILE"
	default:
		return err.Error()
	}
}

// outputFlag adds --output and returns where its value will be.
func outputFlag(cmd *cobra.Command) *string {
	format := cmd.Flags().StringP("output", "o", "text", `how to print: "text" for people, "json" for scripts`)
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if *format != "text" && *format != "json" {
			return errs.New(errs.Invalid, "", `--output %q: want "text" or "json"`, *format)
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
	return format
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
