package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/audit"
)

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "audit",
		GroupID: groupDecide,
		Short:   "Read and prove the audit log of a node",
		Example: `  horkos audit tail --denied --follow
  horkos audit verify /var/lib/horkos/audit.log*`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(auditVerifyCommand(), auditTailCommand())
	return cmd
}

func auditVerifyCommand() *cobra.Command {
	var head string
	var output choice
	cmd := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Prove that the audit log is as it was written, or name the first record that is not",
		Long: `verify holds the files of an audit log to their chain: each record has the hash of the one
before. The files may be given in any order, and the oldest may be missing.

The chain alone shows that nothing was changed without changing all that follows. Who gives
a hash from elsewhere proves it: the daemon writes "audit head" with number and hash of the
last record to the journal once a minute. All up to the record of that hash is then proven.

Exit codes: 0 when the chain is intact, 1 when it is broken, 2 when a file cannot be read.`,
		Example: `  horkos audit verify /var/lib/horkos/audit.log*

  # against the hash of the last "audit head" in the journal
  horkos audit verify /var/lib/horkos/audit.log* --head 1c42ddc0285b9c25135be3bf345e6a041271b784b22a6f6cab6588dab93c5980`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			return auditVerify(cmd, files, head, output.value)
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "the `HASH` of a record that the log must hold")
	choose(cmd, &output, "text", "output", "o", "how to print", "text", "json")
	return cmd
}

// proof is what verify prints as JSON.
type proof struct {
	Files     []string    `json:"files"` // in the order of the chain
	Intact    bool        `json:"intact"`
	Proven    bool        `json:"proven"`
	Records   uint64      `json:"records"`
	First     uint64      `json:"first"`
	Last      uint64      `json:"last"`
	Head      string      `json:"head"`
	Begins    bool        `json:"begins"` // the first record is the first of its chain
	Following uint64      `json:"following"`
	TornBytes int64       `json:"tornBytes"`
	Broken    *proofBreak `json:"broken"`
}

type proofBreak struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Seq    uint64 `json:"seq"`
	Reason string `json:"reason"`
}

func auditVerify(cmd *cobra.Command, files []string, head, output string) error {
	var r audit.Report
	err := slowly(cmd, "reading the log", func() (err error) {
		r, err = audit.Verify(files, strings.TrimSpace(head))
		return err
	})
	if err != nil {
		return err
	}
	if output == "json" {
		p := proof{r.Files, r.Broken == nil, r.Proven && r.Broken == nil, r.Records, r.First, r.Last, r.Head, r.Begins, r.Following, r.Torn, nil}
		if b := r.Broken; b != nil {
			p.Broken = &proofBreak{b.File, b.Line, b.Seq, b.Why}
		}
		err = writeJSON(cmd.OutOrStdout(), p)
	} else {
		err = describeProof(cmd.OutOrStdout(), r, head != "")
	}
	if err == nil && r.Broken != nil {
		return exit(exitNotAllowed)
	}
	return err
}

// describeProof tells people what was found: what is there, what is wrong, what it is worth.
func describeProof(w io.Writer, r audit.Report, headGiven bool) error {
	var text strings.Builder
	switch {
	case r.Records == 0:
		text.WriteString("no records\n")
	case r.Begins:
		fmt.Fprintf(&text, "records %d to %d in %s\n", r.First, r.Last, plural(len(r.Files), "file"))
	default:
		fmt.Fprintf(&text, "records %d to %d in %s; it starts at %d: what was before is not here\n", r.First, r.Last, plural(len(r.Files), "file"), r.First)
	}
	if r.Torn > 0 {
		fmt.Fprintf(&text, "the last line is torn: %d bytes without an end, which the daemon cuts when it starts\n", r.Torn)
	}
	switch b := r.Broken; {
	case b != nil && b.File == "":
		fmt.Fprintf(&text, "broken: %s\n", b.Why)
	case b != nil && b.Seq == 0:
		fmt.Fprintf(&text, "broken at %s:%d: %s\n", printable(b.File), b.Line, b.Why)
	case b != nil:
		fmt.Fprintf(&text, "broken at %s:%d, record %d: %s\n", printable(b.File), b.Line, b.Seq, b.Why)
	case !headGiven:
		fmt.Fprintf(&text, "consistent, not proven: give --head with a hash of \"audit head\" from the journal; horkos_audit_head_seq must have been at most %d\n", r.Last)
	case r.Following > 0:
		fmt.Fprintf(&text, "intact: proven up to record %d; %s after it, consistent\n", r.Last-r.Following, plural(int(r.Following), "record"))
	default:
		fmt.Fprintf(&text, "intact: proven up to record %d, the last\n", r.Last)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
