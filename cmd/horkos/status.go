package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/controller"
	"github.com/horkos/horkos/controller/mirror"
	"github.com/horkos/horkos/version"
)

// statusPatience is how long an answer of the API server is waited for.
const statusPatience = 15 * time.Second

func statusCommand() *cobra.Command {
	var kubeconfig, kubecontext, namespace string
	var watch bool
	var output choice
	cmd := &cobra.Command{
		Use:     "status",
		GroupID: groupCluster,
		Short:   "Tell which nodes of a cluster are gated, and which policies are not in force",
		Long: `status asks the API server for what the gates of the nodes tell about themselves, and for what
horkos controller found in policies, authorities and the other objects, and prints what is not
ready and why. A node without a NodeGate is ungated: no horkos-node runs there, or it knows
no cluster. The controller is taken to run as long as it renews its Lease. Of the admission
webhook it tells whether the API server asks it, and how many replicas answer.

SYNCED is when the gate last knew its policies to be the cluster's, as it last wrote that: it
hears so at least each minute, and writes it every 5 minutes or when something changes. So
some minutes, up to 8, are normal, and say nothing of how soon a change is in force. More is
not: PROBLEMS says what the gate knows of it, and after 15 minutes without a word from it the
node is not ready.

A gate's revision stands for the policies that it decides by. It is marked where it is not
that of most gates: that node is behind, or has a policy folder of its own.

Exit code: 0 when all is ready, 1 when something is not, 2 when that cannot be told.`,
		Example: `  horkos status

  # on, whenever something changes
  horkos status --watch

  # for a script: the nodes that are not gated
  horkos status -o json | jq -r '.nodes[] | select(.ready | not) | .name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // errors are told once, here
			clients, err := clientsOf(kubeconfig, kubecontext)
			if err != nil {
				return err
			}
			s := &statusPrinter{out: cmd.OutOrStdout(), json: output.value == "json"}
			var all listing
			err = slowly(cmd, "asking the API server", func() (err error) {
				ctx, cancel := context.WithTimeout(cmd.Context(), statusPatience)
				defer cancel()
				all, err = list(ctx, clients, namespace)
				return err
			})
			if err != nil {
				return cannotTell(err)
			}
			if watch {
				return s.follow(cmd.Context(), clients, all.lease, all.webhook, cmd.ErrOrStderr())
			}
			state := stateOf(all, time.Now())
			if err := s.print(state); err != nil {
				return err
			}
			if !state.Ready {
				return exit(exitNotAllowed)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server, a `FILE`; empty: as kubectl finds it ($KUBECONFIG, ~/.kube/config)")
	cmd.Flags().StringVar(&kubecontext, "context", "", "the context `NAME` of the kubeconfig; empty: the current one")
	cmd.Flags().StringVar(&namespace, "namespace", "horkos-system", "the `NAMESPACE` of horkos controller, its Lease, and horkos webhook")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print it again whenever something changes, until interrupted")
	outputFlag(cmd, &output)
	return cmd
}

// clientsOf finds the API server as kubectl does.
func clientsOf(kubeconfig, kubecontext string) (apiserver.Clients, error) {
	if _, err := os.Stat(kubeconfig); kubeconfig != "" && errors.Is(err, fs.ErrNotExist) {
		return apiserver.Clients{}, fmt.Errorf("there is no kubeconfig %s: give another with --kubeconfig FILE, or leave that out and set KUBECONFIG", printable(kubeconfig))
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubecontext}).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		where := "$KUBECONFIG or ~/.kube/config"
		if set := os.Getenv(clientcmd.RecommendedConfigPathEnvVar); set != "" {
			where = "KUBECONFIG, which is " + printable(set)
		}
		return apiserver.Clients{}, fmt.Errorf("no kubeconfig at %s: give --kubeconfig FILE, or set KUBECONFIG to one that is there", where)
	case err != nil:
		return apiserver.Clients{}, fmt.Errorf("read how to reach the API server: %w", err)
	}
	config.UserAgent = "horkos/" + version.String()
	config.QPS, config.Burst = 50, 100
	return apiserver.Connect(config)
}

// listing is what the API server has of what status tells of.
type listing struct {
	objects map[mirror.Resource][]metav1.Object
	absent  map[mirror.Resource]bool // collections of kinds that it does not know
	lease   leaseSeen
	webhook webhookState
}

func newListing() listing {
	return listing{objects: make(map[mirror.Resource][]metav1.Object), absent: make(map[mirror.Resource]bool)}
}

// statusResources are those collections.
func statusResources() []mirror.Resource {
	all := []mirror.Resource{controller.Nodes(), controller.NodeGates()}
	for _, k := range controller.Kinds() {
		all = append(all, k.Resource)
	}
	return all
}

var (
	// errNotInstalled tells of a cluster that has none of the kinds.
	errNotInstalled = errors.New("the cluster knows none of the kinds of horkos")
	// errLeftBehind tells of one whose API server still asks the webhook.
	errLeftBehind = errors.New("the cluster knows none of the kinds, but ValidatingWebhookConfiguration " + webhookConfiguration + " is there and nobody answers: what it is asked about is refused")
)

// list asks for all of them, and for the controller's Lease and the webhook in the namespace.
func list(ctx context.Context, clients apiserver.Clients, namespace string) (listing, error) {
	all := newListing()
	for _, r := range statusResources() {
		objects, err := mirror.List(ctx, clients, r)
		switch {
		case apierrors.IsNotFound(err):
			all.absent[r] = true
		case err != nil:
			return listing{}, fmt.Errorf("list %s: %w", r.GroupResource(), err)
		default:
			all.objects[r] = objects
		}
	}
	if len(all.absent) == len(controller.Kinds())+1 { // and NodeGate
		return listing{}, noKinds(ctx, clients, namespace)
	}
	var err error
	if all.lease, err = readLease(ctx, clients, namespace, time.Now()); err != nil {
		return listing{}, err
	}
	webhook, err := readWebhook(ctx, clients, namespace)
	if err != nil {
		return listing{}, err
	}
	all.webhook = webhook.state()
	return all, nil
}

// noKinds is the error of a cluster that has none of the kinds. Who took horkos out of it may have
// left what has its API server ask, and refuse.
func noKinds(ctx context.Context, clients apiserver.Clients, namespace string) error {
	webhook, err := readWebhook(ctx, clients, namespace)
	switch {
	case err != nil:
		return fmt.Errorf("the cluster knows none of the kinds of horkos; %w", err)
	case webhook.configuration == nil && webhook.forbidden:
		return fmt.Errorf("%w (you may not read whether ValidatingWebhookConfiguration %s is there)", errNotInstalled, webhookConfiguration)
	case webhook.configuration == nil:
		return errNotInstalled
	case webhook.forbidden:
		return fmt.Errorf("the cluster knows none of the kinds of horkos, but ValidatingWebhookConfiguration %s is there; whether anybody answers is not known: you may not read its Deployment", webhookConfiguration)
	case webhook.state().Ready > 0:
		return errors.New("the cluster knows none of the kinds of horkos, but the webhook runs. To do: kubectl apply -k crds/manifests")
	}
	return errLeftBehind
}

// cannotTell says what to do about an API server that gives no answer.
func cannotTell(err error) error {
	var unreachable *url.Error
	var network net.Error
	switch {
	case errors.Is(err, errLeftBehind):
		return fmt.Errorf("%w. To do: kubectl delete validatingwebhookconfiguration %s", err, webhookConfiguration)
	case errors.Is(err, errNotInstalled):
		return fmt.Errorf("%w: horkos is not installed in it; kubectl apply -k daemonset/ does that", err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w: use a kubeconfig of somebody who may list it", err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &unreachable), errors.As(err, &network):
		return fmt.Errorf("the API server does not answer: %w; is the kubeconfig that of the cluster, and does the cluster run?", err)
	}
	return err
}

// statusPrinter prints states.
type statusPrinter struct {
	out  io.Writer
	json bool
}

func (p *statusPrinter) print(s clusterState) error {
	if p.json {
		return writeJSON(p.out, s)
	}
	return s.write(p.out)
}

// write prints a state for people.
func (s clusterState) write(w io.Writer) error {
	var text strings.Builder
	if len(s.Nodes) > 0 {
		var rows [][]string
		for _, n := range s.Nodes {
			rows = append(rows, []string{n.Name, dash(n.Mode), yes(n.Ready), n.revision(), n.synced(), dash(n.Version), strings.Join(n.Problems, "; ")})
		}
		table(&text, []string{"NODE", "MODE", "READY", "REVISION", "SYNCED", "VERSION", "PROBLEMS"}, rows)
		text.WriteString("\n")
	}
	text.WriteString("controller  " + printable(s.Controller.text()) + "\n")
	text.WriteString("webhook     " + printable(s.Webhook.text()) + "\n\n")
	var rows [][]string
	for _, k := range s.Kinds {
		if k.Objects > 0 {
			rows = append(rows, []string{k.Kind, fmt.Sprintf("%d of %d", k.Ready, k.Objects), fmt.Sprint(k.Warnings)})
		}
	}
	if len(rows) > 0 {
		table(&text, []string{"KIND", "READY", "WARNINGS"}, rows)
		text.WriteString("\n")
	}
	rows = nil
	for _, kind := range s.NotServed {
		rows = append(rows, []string{"not ready", kind, "-", reasonNotServed, notServed(kind)})
	}
	for _, o := range s.Objects {
		name := o.Name
		if o.Namespace != "" {
			name = o.Namespace + "/" + o.Name
		}
		if !o.Ready {
			rows = append(rows, []string{"not ready", o.Kind, name, o.Reason, o.Message})
		}
		if o.Warning != "" {
			rows = append(rows, []string{"warning", o.Kind, name, o.Warning, o.WarningMessage})
		}
	}
	if len(rows) > 0 {
		table(&text, []string{"", "KIND", "NAME", "REASON", "WHY"}, rows)
		text.WriteString("\n")
	}
	text.WriteString(s.summary() + "\n")
	_, err := io.WriteString(w, text.String())
	return err
}

// table lines up rows. What others wrote is made fit for a terminal.
func table(w io.Writer, head []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = printable(c)
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	_ = t.Flush() // into memory
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// isTerminal tells whether something is written for somebody who looks at it now.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
