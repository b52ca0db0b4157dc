package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"github.com/horkos/horkos/webhook/breakglass"
)

// breakglassPatience is how long the Secret is waited for.
const breakglassPatience = 15 * time.Second

type breakglassOptions struct {
	namespace   string
	images      []string
	reason      string
	lasts       time.Duration
	kubeconfig  string
	kubecontext string
	system      string // the namespace of the Secret
	output      choice
}

func breakglassCommand() *cobra.Command {
	var o breakglassOptions
	cmd := &cobra.Command{
		Use:     "breakglass --namespace NS --image IMAGE... --reason TEXT",
		GroupID: groupCluster,
		Short:   "Mint a token that lets a few images past the admission webhook for a while",
		Long: `breakglass prints a token: as the annotation kritis.grafeas.io/breakglass of a workload and of
its pod template it lets the named images of one namespace past the admission webhook, for an
hour at most. Every use is recorded, counted, and told by an event BreakglassKritisAdmission.
Whoever has the token may use it until it expires.

It is for what controllers make pods of. Who may breakglass clusterattestationpolicies.horkos.dev
needs none for objects of their own: the annotation is "true" then, or better the reason.

Nodes know no breakglass: where horkos-node enforces, the image must be attested, too, by an
emergency authority for example: horkos attest --expires 4h.

Who may read the Secret horkos-breakglass of the webhook may mint.`,
		Example: `  horkos breakglass --namespace shop --image registry.example.com/shop/cart:2 --reason INC-7 --for 30m

  # a patch that annotates a Deployment and its pods; of a CronJob its jobs and their pods
  kubectl -n shop patch deployment cart --type merge -p "$(horkos breakglass --namespace shop ... -o patch)"
  kubectl -n shop patch cronjob sweep --type merge -p "$(horkos breakglass --namespace shop ... -o cronjob-patch)"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // errors are told once, here
			now := time.Now()
			t := breakglass.Token{Namespace: o.namespace, Images: o.images, Reason: o.reason, Minted: now.Unix(), Expires: now.Add(o.lasts).Unix()}
			// What is wrong with it is told before anybody is asked.
			if _, err := breakglass.Mint(make([]byte, breakglass.KeySize), t); err != nil {
				return fmt.Errorf("mint a token: %w", err)
			}
			key, err := o.key(cmd)
			if err != nil {
				return err
			}
			text, err := breakglass.Mint(key, t)
			if err != nil {
				return fmt.Errorf("mint a token: %w", err)
			}
			return writeToken(cmd.OutOrStdout(), o.output.value, text)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "", "the `NAMESPACE` that the images are let into")
	f.StringArrayVar(&o.images, "image", nil, "an `IMAGE` exactly as the pod names it, or a digest; up to 16 times")
	f.StringVar(&o.reason, "reason", "", "why, a `TEXT` for the records")
	f.DurationVar(&o.lasts, "for", 30*time.Minute, "how long it counts, a `DURATION` of at most 1h")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server, a `FILE`; empty: as kubectl finds it ($KUBECONFIG, ~/.kube/config)")
	f.StringVar(&o.kubecontext, "context", "", "the context `NAME` of the kubeconfig; empty: the current one")
	f.StringVar(&o.system, "system-namespace", "horkos-system", "the `NAMESPACE` of the webhook and its Secret")
	choose(cmd, &o.output, "token", "output", "o", "what to print: the token, or a merge patch of a workload with a pod template, or of a CronJob", "token", "patch", "cronjob-patch")
	for _, name := range []string{"namespace", "image", "reason"} {
		_ = cmd.MarkFlagRequired(name) // it fails only for a flag that is not there
	}
	return cmd
}

// key reads the key of tokens.
func (o *breakglassOptions) key(cmd *cobra.Command) (key []byte, err error) {
	clients, err := clientsOf(o.kubeconfig, o.kubecontext)
	if err != nil {
		return nil, err
	}
	err = slowly(cmd, "asking the API server", func() (err error) {
		ctx, cancel := context.WithTimeout(cmd.Context(), breakglassPatience)
		defer cancel()
		key, err = breakglass.Key(ctx, clients.Objects, o.system)
		return err
	})
	switch {
	case errors.Is(err, breakglass.ErrEmpty):
		return nil, fmt.Errorf("%w: the webhook fills it within a minute, if it runs; kubectl -n %s get pods tells", err, o.system)
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w: it comes with the webhook, kubectl apply -k daemonset/webhook; is --system-namespace right?", err)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("%w: only who may read that Secret may mint tokens", err)
	case err != nil:
		return nil, cannotTell(err)
	}
	return key, nil
}

// writeToken prints a token, or a patch that puts it where the reviews of a workload, of the
// jobs of a CronJob, and of the pods look.
func writeToken(w io.Writer, form, token string) error {
	if form != "token" {
		annotated := map[string]any{"annotations": map[string]string{breakglass.Annotation: token}}
		object := map[string]any{"metadata": annotated, "spec": map[string]any{"template": map[string]any{"metadata": annotated}}}
		if form == "cronjob-patch" {
			object = map[string]any{"metadata": annotated, "spec": map[string]any{"jobTemplate": object}}
		}
		patch, err := json.Marshal(object)
		if err != nil {
			return fmt.Errorf("write the patch: %w", err)
		}
		token = string(patch)
	}
	_, err := fmt.Fprintln(w, token)
	return err
}
