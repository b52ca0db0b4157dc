package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
	source "github.com/horkos/horkos/verifier/source/objects"
)

const folderSource = "folder"

type verifyOptions struct {
	namespace string
	policies  []string
	at        string
	action    string
	output    string
}

func verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:     "verify IMAGE...",
		GroupID: "decide",
		Short:   "Tell whether images may run in a namespace, by policies in files",
		Long: `verify decides over manifests, with the verifier that the gates use. No registry is
asked: an image named by a tag is unresolved where a policy requires an attestation.

Exit code: 0 when all images are allowed, 1 when one is denied, 2 when one could not be
decided (unresolved, unavailable, misconfigured) or the command was used wrongly.`,
		Example: `  # may this image run in namespace shop?
  horkos verify registry.example.com/shop/cart@sha256:... -n shop --policy policies/

  # would it next year?
  horkos verify registry.example.com/shop/cart@sha256:... --policy policies/ --at 2027-06-01T00:00:00Z`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answers, err := o.verify(cmd, args)
			if err != nil {
				return err
			}
			if err := write(cmd.OutOrStdout(), o.output, answers); err != nil {
				return err
			}
			return verdict(answers)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "default", "the `NAMESPACE` the images would run in")
	f.StringArrayVar(&o.policies, "policy", nil, "a `FILE|DIR` of policies and attestations; may be given again")
	f.StringVar(&o.at, "at", "", "decide as of this `TIME` (RFC 3339); default now")
	f.StringVar(&o.action, "default-action", "allow", "`allow|deny` images that no policy speaks of")
	f.StringVarP(&o.output, "output", "o", "table", "`table|json`")
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
	if o.action != "allow" && o.action != "deny" {
		return at, fmt.Errorf("--default-action: want allow or deny, not %q", o.action)
	}
	if o.output != "table" && o.output != "json" {
		return at, fmt.Errorf("-o: want table or json, not %q", o.output)
	}
	return at, nil
}

// validNamespace holds a name to a DNS-1123 label: no policy could speak of another, and
// the default action would decide.
func validNamespace(name string) bool {
	return len(name) <= 63 && regexp.MustCompile(`\A[a-z0-9]([-a-z0-9]*[a-z0-9])?\z`).MatchString(name)
}

func (o *verifyOptions) verify(cmd *cobra.Command, images []string) ([]answer, error) {
	now, err := o.check()
	if err != nil {
		return nil, err
	}
	set, err := objects.Load(o.policies...)
	if err != nil {
		return nil, err
	}
	snap := policy.Compile(set)
	for _, f := range snap.Findings() {
		warn(cmd, f.Source, f.Object, f.Message)
	}
	records, ignored := source.Records(set.Objects)
	for _, i := range ignored {
		warn(cmd, i.Source, i.Object, "ignored: "+i.Message)
	}
	memory := evidence.NewMemory()
	memory.Replace(folderSource, records)
	decider := verifier.Decider{Default: verifier.DefaultAction(o.action == "allow"), Sources: []evidence.Question{{Source: folderSource}}}

	answers := make([]answer, 0, len(images))
	for _, name := range images {
		img, err := verifier.AsWritten(name)
		if err != nil {
			return nil, err
		}
		req := &verifier.Request{Namespace: o.namespace, Time: now, Images: []verifier.Image{img}}
		dec, err := decider.Verify(cmd.Context(), req, snap, memory)
		if err != nil {
			return nil, err
		}
		d := &dec.Images[0]
		answers = append(answers, answer{Image: name, Digest: d.Image.Digest(), Namespace: o.namespace, Result: d.Result,
			Reason: d.Reason, Message: d.Message(), Revision: dec.Revision, Checks: append([]verifier.Check{}, d.Checks...)})
	}
	return answers, nil
}

// warn tells of a problem with a manifest, which may hold anything, on standard error.
func warn(cmd *cobra.Command, source, object, message string) {
	text := source + ": "
	if object != "" && !strings.Contains(message, object) {
		text += object + ": "
	}
	printable := func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}
	fmt.Fprintln(cmd.ErrOrStderr(), strings.Map(printable, text+message))
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

func write(w io.Writer, format string, answers []answer) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(answers)
	}
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
