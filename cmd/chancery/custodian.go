package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"chancery/custodian"
	"chancery/internal/errs"
)

func custodianCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "custodian",
		Short:   "Make and read a custodian's identity",
		GroupID: "customer",
		Long: `A custodian holds one share of an organization's root key. His identity is a
post-quantum age key (ML-KEM-768 with X25519) that is made, and stays, on his own
machine. He gives away only the recipient, the public half.`,
	}
	cmd.AddCommand(custodianKeygen(), custodianRecipient())
	return cmd
}

func custodianKeygen() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "keygen --out FILE",
		Short: "Make an identity; print its recipient",
		Example: `  chancery custodian keygen --out alice.identity
  chancery custodian recipient alice.identity > alice.recipient   # give this to whoever creates the organization`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return errs.New(errs.Invalid, "", "--out is missing: name the file that will hold the secret identity")
			}
			id, err := custodian.Keygen()
			if err != nil {
				return err
			}
			if err := id.WriteFile(out, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Wrote the secret identity to %s (mode 0600). Keep it and a backup of it; a quorum of lost identities is a lost organization.\nIts recipient, which is public:\n", out)
			fmt.Fprintln(cmd.OutOrStdout(), id.Recipient())
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write; it must not exist")
	return cmd
}

func custodianRecipient() *cobra.Command {
	return &cobra.Command{
		Use:   "recipient FILE",
		Short: "Print the recipient (the public half) of an identity",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := custodian.ReadRecipient(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), r)
			return nil
		},
	}
}
