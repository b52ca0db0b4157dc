package objects

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/crds"
)

// Manifests of the tests.
const (
	enforcing = "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: p, namespace: prod}\nspec: {attestationAuthorityNames: [a]}\n"
	auditing  = "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: p, namespace: prod}\nspec: {attestationAuthorityNames: [a], enforcement: Audit}\n"
	malformed = "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: p, namespace: prod}\nspec: {enforcement: Audit, wrong: 1}\n"
	elsewhere = "apiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: p, namespace: test}\nspec: {attestationAuthorityNames: [a]}\n"
	authority = "apiVersion: kritis.grafeas.io/v1beta1\nkind: AttestationAuthority\nmetadata: {name: a, namespace: keys}\nspec: {noteReference: projects/p}\n"
	images    = "apiVersion: kritis.grafeas.io/v1beta1\nkind: ImageSecurityPolicy\nmetadata: {name: i, namespace: scan}\nspec: {}\n"
	allowlist = "apiVersion: kritis.grafeas.io/v1beta1\nkind: AdmissionAllowlist\nmetadata: {name: l}\nspec: {patterns: [{namePattern: r/*}]}\n"
	clusterly = "apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c}\nspec: {enforcement: Warn}\n"
	unknown   = "apiVersion: horkos.dev/v1alpha1\nkind: Misspelt\nmetadata: {name: m}\n"
	trust     = "apiVersion: notation.nirmata.io/v1alpha1\nkind: TrustPolicy\nmetadata: {name: t}\n"
	revoking  = "apiVersion: horkos.dev/v1alpha1\nkind: ImageRevocation\nmetadata: {name: r}\nspec: {digests: [d]}\n"
	foreign   = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
	broken    = "apiVersion: [\n"
	nothing   = ""
)

// bench is a policy folder with a clock of its own.
type bench struct {
	*testing.T
	dir, state string
	owned      bool
	folder     *Folder
	now        time.Time
	written    int
}

func newBench(t *testing.T) *bench {
	root := t.TempDir()
	b := &bench{T: t, dir: filepath.Join(root, "policies"), state: filepath.Join(root, "state"), now: time.Now()}
	b.must(os.Mkdir(b.dir, 0o755))
	return b
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// write writes a file in place, with a time no file had before.
func (b *bench) write(name, text string) {
	b.Helper()
	b.must(os.WriteFile(b.path(name), []byte(text), 0o644))
	b.touch(b.path(name))
}

// replace puts a file in place by rename, as whoever wants it believed at once.
func (b *bench) replace(name, text string) {
	b.Helper()
	b.write("."+name, text)
	b.must(os.Rename(b.path("."+name), b.path(name)))
}

func (b *bench) touch(path string) {
	b.Helper()
	b.written++
	at := time.Unix(1_700_000_000+int64(b.written), 0)
	b.must(os.Chtimes(path, at, at))
}

func (b *bench) remove(names ...string) {
	b.Helper()
	for _, name := range names {
		b.must(os.RemoveAll(b.path(name)))
	}
}

func (b *bench) options() FolderOptions {
	return FolderOptions{Dir: b.dir, StateDir: b.state, Owned: b.owned, Log: slog.New(slog.DiscardHandler)}
}

// tryOpen starts the daemon, or starts it again.
func (b *bench) tryOpen() (crds.Set, error) {
	f, err := newFolder(b.options())
	if err != nil {
		return crds.Set{}, err
	}
	if err := f.start(func() time.Time { return b.now }, func(d time.Duration) { b.now = b.now.Add(d) }); err != nil {
		return crds.Set{}, err
	}
	b.folder = f
	return f.set(), nil
}

func (b *bench) open() crds.Set {
	b.Helper()
	set, err := b.tryOpen()
	b.must(err)
	return set
}

// after is what is in force when nothing happens for so long.
func (b *bench) after(d time.Duration) crds.Set {
	b.Helper()
	b.now = b.now.Add(d)
	b.folder.look(b.now)
	return b.folder.set()
}

// settled is what is in force once everything in the folder stood still.
func (b *bench) settled() crds.Set {
	b.Helper()
	for range 2 {
		b.now = b.now.Add(settle)
		b.folder.look(b.now)
	}
	return b.folder.set()
}

// brief is a set in one line a thing: objects, malformed ones with a mark, faults with
// their namespaces, and whether it is stale.
func brief(set crds.Set) []string {
	var lines []string
	for _, o := range set.Objects {
		line := o.ID()
		if o.Malformed() != "" {
			line += " malformed"
		}
		lines = append(lines, line)
	}
	for _, f := range set.Faults {
		line := "fault of " + filepath.Base(f.Source) + " in " + strings.Join(f.Namespaces, ",")
		switch {
		case f.Namespaces == nil:
			line += "every namespace"
		case len(f.Namespaces) == 0:
			line += "none"
		}
		lines = append(lines, line)
	}
	if set.Stale != "" {
		lines = append(lines, "stale")
	}
	return lines
}

func (b *bench) wants(when string, set crds.Set, want ...string) {
	b.Helper()
	if got := brief(set); !reflect.DeepEqual(got, want) {
		b.Errorf("%s: got %q, want %q (%s)", when, got, want, describe(set))
	}
}

func describe(set crds.Set) string {
	text := "stale: " + set.Stale
	for _, f := range set.Faults {
		text += fmt.Sprintf("; %s: %s", f.Source, f.Message)
	}
	return text
}

// Lines of brief.
const (
	isPolicyProd = "GenericAttestationPolicy prod/p"
	isPolicyTest = "GenericAttestationPolicy test/p"
	isAuthority  = "AttestationAuthority keys/a"
	isRevocation = "ImageRevocation r"
)
