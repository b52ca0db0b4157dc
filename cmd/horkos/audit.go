package main

import (
	"fmt"
	"io"
	"os"
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
		Args: verbOf,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(auditVerifyCommand(), auditTailCommand())
	return cmd
}

func auditVerifyCommand() *cobra.Command {
	var heads []string
	var list string
	var output choice
	cmd := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Prove that the audit log is as it was written, or name the first record that is not",
		Long: `verify holds the files of an audit log to their chain: each record has the hash of the one
before. The files may be given in any order, but all must be given: the log says which of its
oldest records it removed itself, and no others may be missing.

The chain alone shows that nothing was changed without changing all that follows, which root
can do. Heads from elsewhere prove more: the daemon writes "audit head" with number and hash
of the last record to the journal once a minute. Ship them off the node and give all of them,
for the newest alone proves only what was not changed before it was taken. Each must be in
the chain at its place, or of a record that the log removed.

Exit codes: 0 when the chain is intact, 1 when it is broken, 2 when a file cannot be read.`,
		Example: `  horkos audit verify /var/lib/horkos/audit.log*

  # against all heads that were shipped, and against one
  grep 'audit head' node1.journal | horkos audit verify audit.log* --heads -
  horkos audit verify audit.log* --head 1c42ddc0285b9c25135be3bf345e6a041271b784b22a6f6cab6588dab93c5980`,
		Args: some("name the files of the log", "horkos audit verify /var/lib/horkos/audit.log*"),
		RunE: func(cmd *cobra.Command, files []string) error {
			known, err := headsFrom(cmd, heads, list)
			if err != nil {
				return err
			}
			return auditVerify(cmd, files, known, output.value)
		},
	}
	cmd.Flags().StringArrayVar(&heads, "head", nil, "the `HASH` of a record that the log must hold, or its number and hash in quotes; may be repeated")
	cmd.Flags().StringVar(&list, "heads", "", "a `FILE` of such heads, a line each, as the daemon writes them to the journal or as number and hash; - is standard input")
	choose(cmd, &output, "text", "output", "o", "how to print", "text", "json")
	return cmd
}

// headsFrom are the heads of both flags.
func headsFrom(cmd *cobra.Command, given []string, list string) ([]audit.Head, error) {
	var all []audit.Head
	for _, text := range given {
		h, err := audit.ParseHead(text)
		if err != nil {
			return nil, fmt.Errorf("--head %s: %w", printable(text), err)
		}
		all = append(all, h)
	}
	if list == "" {
		return all, nil
	}
	in, name := cmd.InOrStdin(), "standard input"
	if list != "-" {
		f, err := os.Open(list)
		if err != nil {
			return nil, fmt.Errorf("--heads: %w", err)
		}
		defer f.Close()
		in, name = f, list
	}
	listed, err := audit.ReadHeads(in)
	if err != nil {
		return nil, fmt.Errorf("--heads %s: %w", printable(name), err)
	}
	if len(listed) == 0 {
		return nil, fmt.Errorf("--heads: there is no head in %s: give the \"audit head\" lines of the daemon's journal", printable(name))
	}
	return append(all, listed...), nil
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
	Heads     int         `json:"heads"`  // given ones that are in the chain
	Older     int         `json:"older"`  // given ones of records that the log removed
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

func auditVerify(cmd *cobra.Command, files []string, heads []audit.Head, output string) error {
	var r audit.Report
	err := slowly(cmd, "reading the log", func() (err error) {
		r, err = audit.Verify(files, heads...)
		return err
	})
	if err != nil {
		return err
	}
	if output == "json" {
		p := proof{r.Files, r.Broken == nil, r.Proven && r.Broken == nil, r.Records, r.First, r.Last, r.Head, r.Begins, r.Heads, r.Older, r.Following, r.Torn, nil}
		if b := r.Broken; b != nil {
			p.Broken = &proofBreak{b.File, b.Line, b.Seq, b.Why}
		}
		err = writeJSON(cmd.OutOrStdout(), p)
	} else {
		err = describeProof(cmd.OutOrStdout(), r, len(heads))
	}
	if err == nil && r.Broken != nil {
		return exit(exitNotAllowed)
	}
	return err
}

// describeProof tells people what was found: what is there, what is wrong, what it is worth.
func describeProof(w io.Writer, r audit.Report, heads int) error {
	var text strings.Builder
	switch {
	case r.Records == 0:
		text.WriteString("no records\n")
	case r.Begins && r.First > 1:
		fmt.Fprintf(&text, "records %d to %d in %s; a new chain begins with %d: of what was before nothing can be said\n", r.First, r.Last, plural(len(r.Files), "file"), r.First)
	case r.Begins:
		fmt.Fprintf(&text, "records %d to %d in %s\n", r.First, r.Last, plural(len(r.Files), "file"))
	default:
		fmt.Fprintf(&text, "records %d to %d in %s; it starts at %d\n", r.First, r.Last, plural(len(r.Files), "file"), r.First)
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
	case heads == 0:
		fmt.Fprintf(&text, "consistent, not proven: give --heads with all \"audit head\" lines of the journal; horkos_audit_head_seq must have been at most %d\n", r.Last)
	case r.Following > 0:
		fmt.Fprintf(&text, "intact: proven up to record %d by %s; %s after it, consistent\n", r.Last-r.Following, plural(r.Heads, "head"), plural(int(r.Following), "record"))
	default:
		fmt.Fprintf(&text, "intact: proven up to record %d, the last, by %s\n", r.Last, plural(r.Heads, "head"))
	}
	if r.Proven && r.Heads == 1 {
		text.WriteString("one head proves nothing of what was changed before it was taken: give all that were shipped\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}
