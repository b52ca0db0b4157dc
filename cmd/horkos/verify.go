package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

type verifyOptions struct {
	namespace string
	policies  []string
	at        string
	action    choice
	output    choice
	explain   bool

	actionSaid bool // --default-action is given
}

func verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:     "verify IMAGE...",
		GroupID: groupDecide,
		Short:   "Tell whether images may run in a namespace, by policies in files",
		Long: `verify decides over manifests, with the verifier that the gates use. No registry is
asked: an image named by a tag is unresolved where a policy requires an attestation.

Exit code: 0 when all images are allowed, 1 when one is denied, 2 when one could not be
decided (unresolved, unavailable, misconfigured) or the command was used wrongly: also
when no policy is given and it is not said what the gates do without one.`,
		Example: `  # may this image run in namespace shop?
  horkos verify registry.example.com/shop/cart@sha256:... -n shop --policy policies/

  # why, or why not? every layer, policy, authority and attestation
  horkos verify registry.example.com/shop/cart@sha256:... -n shop --policy policies/ --explain

  # would it next year?
  horkos verify registry.example.com/shop/cart@sha256:... --policy policies/ --at 2027-06-01T00:00:00Z`,
		Args:              some("name an image", "horkos verify registry.example.com/shop/cart@sha256:... -n shop --policy policies/"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.actionSaid = cmd.Flags().Changed("default-action")
			return o.run(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "default", "the `NAMESPACE` the images would run in")
	f.StringArrayVar(&o.policies, "policy", nil, "a `FILE|DIR` of policies and attestations; may be given again")
	f.StringVar(&o.at, "at", "", "decide as of this `TIME` (RFC 3339); default now")
	f.BoolVar(&o.explain, "explain", false, "draw what was looked at and what it gave, as a tree (JSON has it anyway)")
	actionFlag(cmd, &o.action, defaultAction)
	outputFlag(cmd, &o.output)
	return cmd
}

// answer is what verify prints about one image.
type answer struct {
	Image     string           `json:"image"`
	Digest    image.Digest     `json:"digest"`
	Namespace string           `json:"namespace"`
	Result    verifier.Result  `json:"result"`
	Reason    verifier.Reason  `json:"reason"`
	Message   string           `json:"message"`
	Revision  string           `json:"revision"`
	Checks    []verifier.Check `json:"checks"`
}

func (o *verifyOptions) run(cmd *cobra.Command, images []string) error {
	now, err := o.check()
	if err != nil {
		return err
	}
	w, err := o.read(cmd)
	if err != nil {
		return err
	}
	var decisions []verifier.Decision
	err = slowly(cmd, "deciding", func() error {
		decisions, err = o.decide(cmd.Context(), w, images, now)
		return err
	})
	if err != nil {
		return err
	}
	o.warnOfNoPolicy(cmd, w, decisions)
	answers := o.answers(decisions)
	switch out := cmd.OutOrStdout(); {
	case o.output.value == "json":
		err = writeJSON(out, answers)
	case o.explain:
		err = o.writeTrees(cmd.Context(), out, w, decisions, now)
	default:
		err = writeTable(out, answers)
		o.warnOfReports(cmd, w, decisions)
	}
	if err != nil {
		return err
	}
	return verdict(answers)
}

// read reads the policies, and tells what is wrong with them. Without any, nothing is decided
// unless it is said what the gates do then.
func (o *verifyOptions) read(cmd *cobra.Command) (w *world, err error) {
	var passedOver []crds.Object
	none := "no --policy is given"
	err = slowly(cmd, "reading the policies", func() error {
		set, err := objects.Load(o.policies...)
		if err != nil {
			return err
		}
		w, passedOver = newWorld(o.action.value, set), strangers(o.policies)
		switch {
		case len(o.policies) == 0:
		case !decides(set):
			none = "no policy is in " + strings.Join(o.policies, ", ")
		default:
			none = ""
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	w.warn(cmd)
	for _, s := range passedOver {
		for _, p := range s.Problems {
			warn(cmd, s.Source, s.ID(), p.Message)
		}
	}
	switch {
	case none == "":
	case !o.actionSaid:
		return nil, fmt.Errorf("%s: say what the gates do without one, by --default-action allow or deny", none)
	default:
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: nothing decides but the default action, %s\n", none, o.action.value)
	}
	return w, nil
}

// decides tells whether a set holds anything but attestations and the labels of namespaces.
func decides(set crds.Set) bool {
	return len(set.Faults) > 0 || slices.ContainsFunc(set.Objects, func(o crds.Object) bool {
		return o.Kind != horkos.KindImageAttestation && o.Kind != crds.KindNamespace
	})
}

// warnOfNoPolicy tells of images that the default action decided on: of an allowed one
// nothing else does.
func (o *verifyOptions) warnOfNoPolicy(cmd *cobra.Command, w *world, decisions []verifier.Decision) {
	for i := range decisions {
		d := &decisions[i].Images[0]
		switch {
		case d.Reason != verifier.NoPolicy:
		case len(w.snap.Layers(o.namespace)) == 0:
			fmt.Fprintf(cmd.ErrOrStderr(), "no policy speaks of namespace %s: the default action, %s, decides\n", o.namespace, o.action.value)
			return
		default:
			fmt.Fprintf(cmd.ErrOrStderr(), "no policy that enforces speaks of %s in namespace %s: the default action, %s, decides\n", printable(d.Image.Written), o.namespace, o.action.value)
		}
	}
}

// warnOfReports tells of policies that only report, and would not have allowed what is
// allowed: the table has no word of them.
func (o *verifyOptions) warnOfReports(cmd *cobra.Command, w *world, decisions []verifier.Decision) {
	layers := w.snap.Layers(o.namespace)
	for i := range decisions {
		d := &decisions[i].Images[0]
		if d.Result != verifier.Allowed {
			continue
		}
		for k := range layers {
			for _, p := range layers[k].Policies {
				if own := reported(d, &layers[k], p); len(own) > 0 {
					if s := standingOf(p, own); s.result != verifier.Allowed {
						fmt.Fprintf(cmd.ErrOrStderr(), "%s only reports (%s): enforced, it would refuse %s: %s (--explain tells why)\n",
							printable(p.ID()), p.Enforcement, printable(d.Image.Written), s)
					}
				}
			}
		}
	}
}

// reported are the checks of a policy that only reports.
func reported(d *verifier.ImageDecision, l *policy.Layer, p *policy.Policy) (own []verifier.Check) {
	if p.Enforcement == policy.Enforce {
		return nil
	}
	for _, c := range d.Checks {
		if c.Layer == l.Name && c.Policy == p.ID() && c.Requirement != verifier.RequirementAllowlist {
			own = append(own, c)
		}
	}
	return own
}

// check says what is wrong with the flags, and as of when to decide.
func (o *verifyOptions) check() (at time.Time, err error) {
	at = time.Now()
	if o.at != "" {
		if at, err = time.Parse(time.RFC3339, o.at); err != nil {
			return at, fmt.Errorf("--at: want a time of RFC 3339, such as 2027-06-01T00:00:00Z, not %q", o.at)
		}
	}
	if !validNamespace(o.namespace) {
		return at, fmt.Errorf("-n: %q cannot be the name of a namespace", o.namespace)
	}
	return at, nil
}

// validNamespace holds a name to a DNS-1123 label: no policy could speak of another, and
// the default action would decide.
func validNamespace(name string) bool {
	return len(name) <= 63 && regexp.MustCompile(`\A[a-z0-9]([-a-z0-9]*[a-z0-9])?\z`).MatchString(name)
}

// decide asks about each image by itself.
func (o *verifyOptions) decide(ctx context.Context, w *world, images []string, now time.Time) ([]verifier.Decision, error) {
	decisions := make([]verifier.Decision, 0, len(images))
	for _, name := range images {
		img, err := verifier.AsWritten(name)
		if err != nil {
			return nil, err
		}
		req := &verifier.Request{Namespace: o.namespace, Time: now, Once: true, Images: []verifier.Image{img}}
		dec, err := w.decider.Verify(ctx, req, w.snap, w.memory)
		if err != nil {
			return nil, err
		}
		decisions = append(decisions, dec)
	}
	return decisions, nil
}

func (o *verifyOptions) answers(decisions []verifier.Decision) []answer {
	answers := make([]answer, 0, len(decisions))
	for i := range decisions {
		d := &decisions[i].Images[0]
		answers = append(answers, answer{Image: d.Image.Written, Digest: d.Image.Digest(), Namespace: o.namespace, Result: d.Result,
			Reason: d.Reason, Message: d.Message(), Revision: decisions[i].Revision, Checks: append([]verifier.Check{}, d.Checks...)})
	}
	return answers
}

// verdict is the exit code: could not decide beats denied beats allowed.
func verdict(answers []answer) error {
	code := exit(exitAllowed)
	for _, a := range answers {
		switch a.Result {
		case verifier.Allowed:
		case verifier.Denied:
			code = max(code, exitNotAllowed)
		default:
			code = exitUndecided
		}
	}
	if code == exitAllowed {
		return nil
	}
	return code
}

func writeTable(w io.Writer, answers []answer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "RESULT\tREASON\tIMAGE")
	for _, a := range answers {
		fmt.Fprintf(t, "%s\t%s\t%s\n", a.Result, a.Reason, a.Image)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, a := range answers {
		if a.Result != verifier.Allowed {
			fmt.Fprintf(w, "\n%s\n", a.Message)
		}
	}
	return nil
}

// writeTrees explains each decision. What to do stands below the tree in one line, however
// long: it may be a command to copy.
func (o *verifyOptions) writeTrees(ctx context.Context, out io.Writer, w *world, decisions []verifier.Decision, now time.Time) error {
	for i := range decisions {
		e := explanation{world: w, namespace: o.namespace, now: now, action: o.action.value, revision: decisions[i].Revision, decision: &decisions[i].Images[0]}
		tree, err := e.tree(ctx)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := draw(out, tree); err != nil {
			return err
		}
		if advice := e.decision.Advice(); advice != "" {
			if _, err := fmt.Fprintf(out, "\n%s\n", printable(advice)); err != nil {
				return err
			}
		}
	}
	return nil
}
