package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/verifier"
)

const (
	defaultAuditLog = "/var/lib/horkos/audit.log"
	maxTailRecords  = 10_000
	// maxTailLine bounds what is read of a line: more than the log writes.
	maxTailLine = 512 << 10
	// maxTailOdd is how much is shown of a line that is no record.
	maxTailOdd = 120
	// tailPatience is how long the log is left alone before it is looked at again.
	tailPatience = 250 * time.Millisecond
)

func auditTailCommand() *cobra.Command {
	var denied, follow bool
	var n int
	var output choice
	cmd := &cobra.Command{
		Use:   "tail [FILE]",
		Short: "Print the last decisions of a node, a line each",
		Long: `tail prints the last records of an audit log: when, whether the container was admitted, the
result and reason, whose it is, the image, and why. Older files of the log are read as well
where the current one has not enough. It proves nothing: that is horkos audit verify.

On a terminal a line ends where that does; it is whole in a file or a pipe.

Records are in the order in which they were written. What is decided again and again is
counted and written later: "(12 more)" stands for as many repeats, has the time of the last
of them, and may stand after records with later times.`,
		Example: `  # what was refused last
  horkos audit tail --denied

  # the same, with all of why
  horkos audit tail --denied | less

  # what is decided from now on, for a script
  horkos audit tail --follow -n 0 -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n < 0 || n > maxTailRecords {
				return fmt.Errorf("-n %d: want 0 to %d", n, maxTailRecords)
			}
			t := &tail{path: defaultAuditLog, n: n, denied: denied, raw: output.value == "json",
				out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr(), patience: tailPatience}
			if len(args) > 0 {
				t.path = args[0]
			}
			if follow {
				return t.follow(cmd.Context())
			}
			return t.print()
		},
	}
	cmd.Flags().BoolVar(&denied, "denied", false, "only what is not allowed")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes, until interrupted")
	cmd.Flags().IntVarP(&n, "lines", "n", 20, "how many records")
	choose(cmd, &output, "text", "output", "o", "how to print: text, or the records as they are", "text", "json")
	return cmd
}

// tail prints the records of a log.
type tail struct {
	path     string
	n        int
	denied   bool
	raw      bool
	out      io.Writer
	errs     io.Writer
	patience time.Duration

	file *os.File // the current file, when following
	in   *lineReader
	seq  uint64 // of the last record seen
}

// print prints the last records and leaves it at that.
func (t *tail) print() error {
	files, err := t.files()
	if err != nil {
		return err
	}
	var last []string
	for i := len(files) - 1; i >= 0 && (len(last) < t.n || t.seq == 0); i-- {
		more, err := t.lastOf(files[i], t.n-len(last))
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away meanwhile
		}
		if err != nil {
			return err
		}
		last = append(more, last...)
	}
	return t.write(last...)
}

// files are those of the log; a log that is not there at all is said.
func (t *tail) files() ([]string, error) {
	files, err := audit.Files(t.path)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no audit log at %s: give its path, the --audit-log of horkos-node", t.path)
	}
	return files, err
}

// lastOf gives the last n lines to print of a file.
func (t *tail) lastOf(path string, n int) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var last []string
	in := newLineReader(f)
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		text, seq, ok := t.shown(line)
		t.seq = max(t.seq, seq)
		if !ok {
			continue
		}
		if last = append(last, text); len(last) > n {
			last = last[1:]
		}
	}
}

// follow prints the last records and then what comes, over rotations, until the context ends.
func (t *tail) follow(ctx context.Context) error {
	if err := t.print(); err != nil {
		return err
	}
	defer func() {
		if t.file != nil {
			t.file.Close()
		}
	}()
	tick := time.NewTicker(t.patience)
	defer tick.Stop()
	for {
		if err := t.catchUp(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// catchUp prints what is new, in the file that is open and in those after it.
func (t *tail) catchUp() error {
	if t.file != nil {
		if err := t.drain(t.in); err != nil {
			return err
		}
		if !t.rotated() {
			return nil
		}
		if err := t.drain(t.in); err != nil { // what came before it was rotated
			return err
		}
		t.file.Close()
		t.file = nil
	}
	return t.open()
}

// open prints what is new in older files and goes over to the current one. That is opened
// before the others are listed: else it could be rotated in between, and its records be in
// neither.
func (t *tail) open() error {
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // between two files
	}
	if err != nil {
		return err
	}
	files, err := audit.Files(t.path)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t.file, t.in = f, newLineReader(f)
	if t.rotated() { // the list may hold what comes after it, without it
		t.file = nil
		return f.Close() // until the next look
	}
	if err := t.older(files); err != nil {
		return err
	}
	return t.drain(t.in)
}

// rotated tells whether the file that is open is not the current one any more.
func (t *tail) rotated() bool {
	at, err := os.Stat(t.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	info, err := t.file.Stat()
	return err == nil && (!os.SameFile(at, info) || info.Size() < t.in.read)
}

// older prints what is new in the older files of the log: there may have been several rotations.
func (t *tail) older(files []string) error {
	for i, path := range files {
		if path == t.path || (i+1 < len(files) && firstOf(files[i+1]) <= t.seq+1 && files[i+1] != t.path) {
			continue
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = t.drain(newLineReader(f))
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// firstOf is the number of the first record of an older file, by its name.
func firstOf(path string) uint64 {
	first, _ := strconv.ParseUint(strings.TrimPrefix(filepath.Ext(path), "."), 10, 64)
	return first
}

// drain prints the records of a file that were not seen yet.
func (t *tail) drain(in *lineReader) error {
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		text, seq, ok := t.shown(line)
		if seq <= t.seq {
			continue // seen, or no record
		}
		t.seq = seq
		if ok {
			if err := t.write(text); err != nil {
				return err
			}
		}
	}
}

func (t *tail) write(lines ...string) error {
	for _, line := range lines {
		if _, err := fmt.Fprintln(t.out, line); err != nil {
			return err
		}
	}
	return nil
}

// shown is how a line is printed, the number of its record, and whether it is to be printed.
func (t *tail) shown(line []byte) (text string, seq uint64, ok bool) {
	var r audit.Record
	if err := json.Unmarshal(line, &r); err != nil {
		if t.raw {
			fmt.Fprintln(t.errs, "a line that is no record is left out; horkos audit verify says which")
			return "", 0, false
		}
		return shorten("not a record: "+printable(string(line[:min(len(line), maxTailOdd)])), columnsOf(t.out)), 0, true
	}
	if t.denied && r.Result == verifier.Allowed {
		return "", r.Seq, false
	}
	if t.raw {
		return string(line), r.Seq, true
	}
	return recordLine(&r, columnsOf(t.out)), r.Seq, true
}

// columnsOf is how wide the terminal is that is written to; 0 where there is none, or it does
// not say.
func columnsOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// recordLine is a record in one line for people, of so many columns; whole with 0.
func recordLine(r *audit.Record, columns int) string {
	verdict := "refused"
	if r.Admitted {
		verdict = "admitted"
	}
	if r.Gate == "audit" && r.Repeated == 0 {
		verdict = "log" // it is about the log itself
	}
	start := fmt.Sprintf("%s %-8s %s/%s", r.Time.UTC().Format("2006-01-02 15:04:05"), verdict, r.Result, r.Reason)
	name := 0 // how wide a name may be: most of the room is for why
	if columns > 0 {
		name = max(16, (columns-len(start))/4)
	}
	parts := []string{start}
	if who := strings.Trim(strings.Join([]string{r.Namespace, r.Pod, r.Container}, "/"), "/"); who != "" {
		parts = append(parts, inMiddle(printable(who), name))
	}
	if r.Image != "" {
		parts = append(parts, inMiddle(printable(r.Image), name))
	}
	if r.Repeated > 0 {
		parts = append(parts, fmt.Sprintf("(%d more)", r.Repeated))
	}
	return shorten(printable(strings.Join(append(parts, whyOf(r)), " ")), columns)
}

// whyOf is the message of a record without what the columns before it say.
func whyOf(r *audit.Record) string {
	why, ok := strings.CutPrefix(r.Message, "image "+r.Image+" is ")
	if !ok || r.Image == "" {
		return r.Message
	}
	for _, verdict := range []string{"not attested: ", "refused: "} {
		why = strings.TrimPrefix(why, verdict)
	}
	return why
}

// shorten cuts a text to so many letters; with 0 it leaves it as it is.
func shorten(s string, n int) string {
	if n <= 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// inMiddle cuts the middle of a text: the ends of names tell more. With 0 it leaves it as it is.
func inMiddle(s string, n int) string {
	letters := []rune(s)
	if n <= 0 || len(letters) <= n {
		return s
	}
	return string(letters[:n/2-1]) + "…" + string(letters[len(letters)-n/2:])
}

// lineReader reads whole lines of a file that is written to, and leaves out those that are
// too long.
type lineReader struct {
	in   *bufio.Reader
	part []byte // of a line whose end is not there yet
	long bool
	read int64
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{in: bufio.NewReader(r)}
}

// next gives the next whole line without its newline; io.EOF when there is none yet.
func (l *lineReader) next() ([]byte, error) {
	for {
		text, err := l.in.ReadSlice('\n')
		l.read += int64(len(text))
		if l.long = l.long || len(l.part)+len(text) > maxTailLine; !l.long {
			l.part = append(l.part, text...)
		}
		switch {
		case err == nil:
			line, long := l.part, l.long
			l.part, l.long = nil, false
			if !long {
				return line[:len(line)-1], nil
			}
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
