package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/version"
	"github.com/horkos/horkos/webhook"
)

type webhookFlags struct {
	config        webhook.Config
	names         []string
	defaultAction choice
	format, level choice
}

func webhookCommand() *cobra.Command {
	var f webhookFlags
	c := &f.config
	cmd := &cobra.Command{
		Use:     "webhook",
		GroupID: groupCluster,
		Short:   "Tell users at once which images would be refused: the admission webhook (in a pod)",
		Long: `webhook answers the API server's questions about pods, and about what makes pods, before they
are stored: the same verifier as on the nodes, by the policies and attestations of the cluster. Who
runs kubectl sees why an image is refused. The last word is the node's: what passes the webhook,
or goes past it, is decided there again.

It makes its certificate, keeps it in a Secret that all replicas share, renews it and tells the
ValidatingWebhookConfiguration whom to believe; or it is given one (--tls-cert-file).

Anybody who reaches its port may ask, unless --client-ca-file is given. API servers show a
certificate when their AdmissionConfiguration gives them a kubeconfig for webhooks. Give an
authority that signs for them alone, or --client-name: that of the cluster signs for every node.`,
		Example: `  # in a pod, with its service account
  horkos webhook --default-action deny

  # try it first: let everything through, with a warning
  horkos webhook --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !c.DryRun && !cmd.Flags().Changed("default-action") {
				return errors.New("--default-action allow|deny must be given: it decides about images that no policy speaks of")
			}
			return runWebhook(cmd.Context(), cmd.ErrOrStderr(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "how to reach the API server, a `FILE`; empty: as a pod does")
	flags.StringVar(&c.Namespace, "namespace", "horkos-system", "the `NAMESPACE` of the webhook: of its Secrets and its Service")
	flags.StringVar(&c.Address, "address", ":8443", "answer reviews on `HOST:PORT`")
	flags.StringVar(&c.HealthAddress, "health-address", ":8080", "serve /healthz, /readyz and /metrics on `HOST:PORT`")
	flags.StringVar(&c.StateDir, "state-dir", "/var/lib/horkos", "the `DIR` for what must last over a restart of the container")
	flags.BoolVar(&c.DryRun, "dry-run", false, "let everything through, with a warning where it would be denied")
	flags.StringVar(&c.CertFile, "tls-cert-file", "", "show the certificate in `FILE`, as cert-manager writes it; none is made then")
	flags.StringVar(&c.KeyFile, "tls-key-file", "", "the `FILE` of its key")
	flags.StringVar(&c.Secret, "tls-secret", "horkos-webhook-tls", "the `NAME` of the Secret of the certificate that is made")
	flags.StringVar(&c.Configuration, "configuration", "horkos", "the `NAME` of the ValidatingWebhookConfiguration that is told whom to believe")
	flags.StringSliceVar(&f.names, "tls-name", nil, "a `NAME` or address that the API server calls the webhook by; repeatable; none: horkos-webhook.NAMESPACE.svc, of --namespace")
	flags.DurationVar(&c.Lifetime, "tls-lifetime", webhook.DefaultLifetime, "how long a certificate that is made holds, a minute at least; it is replaced at two thirds of that")
	flags.StringVar(&c.ClientCAFile, "client-ca-file", "", "answer only clients that show a certificate of an authority in `FILE`, which is read again when it changes")
	flags.StringSliceVar(&c.ClientNames, "client-name", nil, "and whose certificate bears this `NAME`, as its common name or a DNS name; repeatable, one will do")
	flags.DurationVar(&c.ShutdownDelay, "shutdown-delay", 10*time.Second, "how long to answer on when told to end, for the API server to go elsewhere")
	flags.DurationVar(&c.MaximumAge, "maximum-policy-age", objects.DefaultMaximumAge, "how long policies are used without hearing of the cluster")
	choose(cmd, &f.defaultAction, "allow", "default-action", "", "what an image gets that no enforcing policy speaks of; must be given but for a dry run", "allow", "deny")
	choose(cmd, &f.format, "text", "log-format", "", "how to log", "text", "json")
	choose(cmd, &f.level, "info", "log-level", "", "what to log", "debug", "info", "warn", "error")
	return cmd
}

func runWebhook(ctx context.Context, out io.Writer, f webhookFlags) error {
	log, err := newLog(out, f.format.value, f.level.value)
	if err != nil {
		return err
	}
	klog.SetSlogLogger(log)
	c := f.config
	if (c.CertFile == "") != (c.KeyFile == "") {
		return fmt.Errorf("--tls-cert-file and --tls-key-file: give both or neither")
	}
	if len(c.ClientNames) > 0 && c.ClientCAFile == "" {
		return fmt.Errorf("--client-name says which clients of --client-ca-file may ask: give that too")
	}
	if c.Lifetime < webhook.MinLifetime {
		return fmt.Errorf("--tls-lifetime %s: want %s at least", c.Lifetime, webhook.MinLifetime)
	}
	c.Names, c.Addresses = calledBy(f.names, c.Namespace)
	if c.Name, err = os.Hostname(); err != nil {
		return fmt.Errorf("ask for the pod's name: %w", err)
	}
	c.DefaultAction = verifier.DefaultAction(f.defaultAction.value == "allow")
	if err := webhook.Run(ctx, c, version.String(), log); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// calledBy sorts what the API server calls the webhook by: without any it is its Service in the
// namespace, as the manifests have it.
func calledBy(all []string, namespace string) (names []string, addresses []net.IP) {
	if len(all) == 0 {
		return []string{"horkos-webhook." + namespace + ".svc"}, nil
	}
	for _, name := range all {
		if ip := net.ParseIP(name); ip != nil {
			addresses = append(addresses, ip)
		} else {
			names = append(names, name)
		}
	}
	return names, addresses
}
