package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"chancery/api/v1alpha1"
	"chancery/client"
	"chancery/custodian"
	"chancery/internal/apiserver/kubeconfig"
	"chancery/internal/errs"
	"chancery/internal/files"
	"chancery/wall"
	"chancery/zone"
)

// demo is a demonstration: a zone, and beside it everything that in earnest would
// be on other people's machines.
type demo struct {
	dir, org string
	out      io.Writer
	begin    time.Time
}

func upCommand() *cobra.Command {
	d := demo{}
	var s3Port, apiPort, operatorPort int
	var verbose bool
	cmd := &cobra.Command{
		Use:     "up",
		Short:   "Run a demonstration: a zone with one unsealed organization, ready for S3 clients",
		GroupID: "start",
		Long: `Runs a zone with one organization that is unsealed and holds one project and one
access key, and stays in the foreground. DIR/demo.env holds what S3 clients and
kubectl need. Ctrl-C stops everything; the next start comes back with the data.

This is a demonstration: the single custodian's identity lies in DIR, beside the
data, so whoever reads DIR can unseal. For real, see: chancery zone --help`,
		Example: `  chancery up --dir ./data
  . ./data/demo.env && aws s3 mb s3://hello`,
		Args: cobra.NoArgs,
	}
	dir := dirFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&d.org, "org", "demo", "the organization's name")
	f.IntVar(&s3Port, "s3-port", 9000, "port of S3 on 127.0.0.1; 0 picks a free one (demo.env tells it)")
	f.IntVar(&apiPort, "api-port", 9443, "port of the organization's API server and seal service; 0 picks a free one")
	f.IntVar(&operatorPort, "operator-port", 0, "port of the operator's API server; 0 picks a free one")
	f.BoolVarP(&verbose, "verbose", "v", false, "log more")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d.dir, d.out, d.begin = *dir, cmd.OutOrStdout(), time.Now()
		settings, err := d.settings(s3Port, apiPort, operatorPort)
		if err != nil {
			return err
		}
		d.step("starting zone %s in %s", settings.Name, d.dir)
		err = zone.Serve(cmd.Context(), d.dir, zone.Options{
			Version:  version,
			Settings: &settings,
			Log:      logger(cmd.ErrOrStderr(), verbose),
			Ready:    func(r zone.Running) error { return d.ready(cmd.Context(), r) },
		})
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%w; choose others with --s3-port, --api-port and --operator-port (0 picks a free one)", err)
		}
		return err
	}
	return cmd
}

func (d *demo) step(format string, args ...any) {
	fmt.Fprintf(d.out, "==> %5.1f s  %s\n", time.Since(d.begin).Seconds(), fmt.Sprintf(format, args...))
}

// settings are those of this start: the ports may change from one to the next.
func (d *demo) settings(s3Port, apiPort, operatorPort int) (zone.Settings, error) {
	for name, port := range map[string]int{"s3-port": s3Port, "api-port": apiPort, "operator-port": operatorPort} {
		if port < 0 || port > 65535 {
			return zone.Settings{}, errs.New(errs.Invalid, "", "--%s %d: want 0 to 65535", name, port)
		}
	}
	if !zone.ValidLabel(d.org) {
		return zone.Settings{}, errs.New(errs.Invalid, "", "--org %q: want a DNS label such as demo", d.org)
	}
	s, err := zone.Load(d.dir)
	switch {
	case errs.Is(err, errs.NotFound):
		s = zone.Settings{Name: "demo-zone", Jurisdiction: "LU", Domain: "localhost", DefaultOrganization: d.org, Demonstration: true}
	case err != nil:
		return s, err
	case !s.Demonstration:
		return s, errs.New(errs.Denied, "", "%s holds a real zone (%s), not a demonstration; run it with `chancery zone serve --dir %s`", d.dir, s.Name, d.dir)
	case s.DefaultOrganization != d.org:
		return s, errs.New(errs.Conflict, "", "%s holds a demonstration with organization %s; start it with --org %s, or take another --dir", d.dir, s.DefaultOrganization, s.DefaultOrganization)
	}
	loopback := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	s.S3Listen, s.APIListen, s.OperatorListen = loopback(s3Port), loopback(apiPort), loopback(operatorPort)
	if err != nil {
		if err := zone.Init(d.dir, s); err != nil {
			return s, err
		}
	}
	return s, nil
}

// ready makes what the demonstration shows, as far as it is not there from an
// earlier start, and tells how to use it.
func (d *demo) ready(ctx context.Context, r zone.Running) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	id, err := d.identity()
	if err != nil {
		return err
	}
	if err := d.organization(ctx, r, id); err != nil {
		return err
	}
	seal := &custodian.Client{Endpoint: r.Endpoints.API, ServerName: "seal." + d.org + "." + r.Settings.Domain}
	unsealed, err := unsealWhenUp(ctx, seal, id)
	if err != nil {
		return err
	}
	if unsealed.Status.State != wall.Unsealed {
		return errs.New(errs.Sealed, "up", "organization %s needs more shares than the demonstration holds", d.org)
	}
	d.step("organization %s is unsealed", d.org)
	credential, err := seal.Bootstrap(ctx, id)
	if err != nil {
		return err
	}
	org, err := client.OpenOrganization(ctx, r.Endpoints.API, "api."+d.org+"."+r.Settings.Domain, credential.CACertificate, credential.Token)
	if err != nil {
		return err
	}
	if _, err := org.EnsureProject(ctx, d.org); err != nil {
		return err
	}
	keyID, secret, err := org.EnsureAccessKey(ctx, d.org, "demo", "demo")
	if err != nil {
		return err
	}
	d.step("project %s and its access key are there", d.org)
	return d.tell(r, credential, keyID, secret)
}

// unsealWhenUp gives the share, waiting for a cell that is just starting.
func unsealWhenUp(ctx context.Context, seal *custodian.Client, id *custodian.Identity) (custodian.Result, error) {
	for {
		result, err := seal.Unseal(ctx, id)
		if err == nil || !errs.Is(err, errs.Unavailable) {
			return result, err
		}
		select {
		case <-ctx.Done():
			return result, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *demo) identity() (*custodian.Identity, error) {
	path := filepath.Join(d.dir, "demo", "custodian.identity")
	if err := files.MkdirAll(files.OS(), filepath.Dir(path)); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); err == nil {
		return custodian.ReadIdentityFile(path)
	}
	id, err := custodian.Keygen()
	if err != nil {
		return nil, err
	}
	d.step("made the demonstration's custodian")
	return id, id.WriteFile(path, time.Now())
}

func (d *demo) organization(ctx context.Context, r zone.Running, id *custodian.Identity) error {
	op, err := client.OpenOperator(r.OperatorKubeconfig)
	if err != nil {
		return err
	}
	err = op.CreateOrganization(ctx, d.org, 1, []v1alpha1.Custodian{{Name: "demo", Recipient: id.Recipient()}}, true, false)
	switch {
	case errs.Is(err, errs.Exists):
	case err != nil:
		return err
	default:
		d.step("creating organization %s: its cell makes the root key", d.org)
	}
	_, err = op.WaitOrganization(ctx, d.org, v1alpha1.OrganizationSealed, v1alpha1.OrganizationUnsealed)
	return err
}

// rcloneFunction keeps AWS_CA_BUNDLE from rclone: its S3 library, up to 1.60 at
// least, fails at start when that is set. RCLONE_CA_CERT says the same.
const rcloneFunction = "rclone() { env -u AWS_CA_BUNDLE rclone \"$@\"; }\n"

// resticFunction gives restic the authority: Debian's does not read RESTIC_CACERT.
const resticFunction = "restic() { command restic --cacert \"$RESTIC_CACERT\" \"$@\"; }\n"

// shellQuote makes one word of POSIX sh of s, whatever is in it.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// tell writes the files that clients read, and says what can be done now.
func (d *demo) tell(r zone.Running, c custodian.Credential, keyID, secret string) error {
	dir, err := filepath.Abs(d.dir)
	if err != nil {
		return errs.Wrap("up", err)
	}
	ca, config, env := filepath.Join(dir, "demo", "ca.pem"), filepath.Join(dir, "demo.kubeconfig"), filepath.Join(dir, "demo.env")
	if err := files.WriteFile(files.OS(), ca, []byte(c.CACertificate)); err != nil {
		return err
	}
	kube := organizationConfig(d.org, r.Endpoints.API, r.Settings.Domain, c)
	kube.Namespace = d.org
	if err := kubeconfig.Write(files.OS(), config, kube); err != nil {
		return err
	}
	url := "https://" + r.Endpoints.S3
	var b strings.Builder
	b.WriteString("# Made by chancery up, for a shell to source.\n")
	for _, v := range [][2]string{
		{"AWS_ENDPOINT_URL", url}, {"AWS_ACCESS_KEY_ID", keyID}, {"AWS_SECRET_ACCESS_KEY", secret},
		{"AWS_REGION", r.Settings.Name}, {"AWS_DEFAULT_REGION", r.Settings.Name}, {"AWS_CA_BUNDLE", ca}, {"KUBECONFIG", config},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
	}
	// More that clients understand: rclone's remote "demo:", and CA files of those that do not know AWS_CA_BUNDLE.
	for _, v := range [][2]string{
		{"RCLONE_CONFIG_DEMO_TYPE", "s3"}, {"RCLONE_CONFIG_DEMO_PROVIDER", "Other"}, {"RCLONE_CONFIG_DEMO_ENV_AUTH", "true"},
		{"RCLONE_CONFIG_DEMO_ENDPOINT", url}, {"RCLONE_CA_CERT", ca}, {"RESTIC_CACERT", ca},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
	}
	b.WriteString(rcloneFunction + resticFunction)
	if err := files.WriteFile(files.OS(), env, []byte(b.String())); err != nil {
		return err
	}
	d.step("ready")
	fmt.Fprintf(d.out, `
  S3                    %s
  API (kubectl)         https://%s
  operator's API        https://%s   KUBECONFIG=%s
  variables             %s

  DEMONSTRATION: the one custodian's identity lies in %s.
  Whoever reads that directory can unseal the organization. Do not keep secrets here.

  Try this, in another shell:
    . %s
    aws --endpoint-url $AWS_ENDPOINT_URL s3 mb s3://hello && echo "it works" | aws --endpoint-url $AWS_ENDPOINT_URL s3 cp - s3://hello/world
    kubectl get buckets -o wide

  Check the promises: chancery prove --dir %s
  Ctrl-C stops everything; the data stay.
`, url, r.Endpoints.API, r.Endpoints.Operator, shellQuote(r.OperatorKubeconfig), env, filepath.Join(dir, "demo"), shellQuote(env), shellQuote(dir))
	return nil
}
