package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/state"
)

// acceptName is the file of the state folder by which an operator gives up the set that
// stays in force though the folder holds no policy any more: the hash of that set, and a
// newline. It is good for that set alone, and used up when it was looked at.
const acceptName = "accept-empty"

// acceptedHash is what the file may hold.
var acceptedHash = regexp.MustCompile(`^[0-9a-f]{64}$`)

// KeptInfo describes what the kept copy of a policy folder holds: the set that is in force.
type KeptInfo struct {
	Hash    string // of the set, for AcceptEmpty: SHA-256, 64 hex digits
	Objects int
	Names   []string // of the objects, as crds.Object.ID, in the order of their files
	Absent  bool     // the folder held no policy any more when this was kept
}

// Kept reads the kept copy in a state folder. The state folder and the copy must belong
// to root and be writable by nobody else; os.ErrNotExist is in the chain of the error when
// nothing is kept.
func Kept(stateDir string) (KeptInfo, error) {
	if err := checkState(stateDir, true); err != nil {
		return KeptInfo{}, fmt.Errorf("state folder: %w", err)
	}
	kept, absent, err := readKept(stateDir, true)
	if err != nil {
		return KeptInfo{}, fmt.Errorf("read the kept copy of the policies: %w", err)
	}
	objects := kept.objects(true)
	info := KeptInfo{Hash: hashOf(objects), Objects: len(objects), Absent: absent}
	for _, o := range objects {
		info.Names = append(info.Names, o.ID())
	}
	return info, nil
}

// AcceptEmpty gives up the set with that hash: the daemon takes the policy folder as it is
// if that set is in force when it looks, and the folder holds no policy. The state folder
// must belong to root and be writable by nobody else.
func AcceptEmpty(stateDir, hash string) error {
	if !acceptedHash.MatchString(hash) {
		return fmt.Errorf("accept the empty policy folder: %q is not the hash of a set", hash)
	}
	if err := checkState(stateDir, true); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if err := state.Replace(stateDir, acceptName, []byte(hash+"\n")); err != nil {
		return fmt.Errorf("accept the empty policy folder: %w", err)
	}
	return nil
}

// hashOf is the same for the same objects, whatever files they are in.
func hashOf(objects []crds.Object) string {
	lines := make([]string, len(objects))
	for i, o := range objects {
		// Neither has a newline in it: an API version with one is quoted, canonical JSON has none.
		lines[i] = fmt.Sprintf("%q %s\n", o.APIVersion, o.Canonical())
	}
	slices.Sort(lines)
	sum := sha256.New()
	for _, line := range lines {
		sum.Write([]byte(line))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func (f *Folder) acceptPath() string { return filepath.Join(f.options.StateDir, acceptName) }

// acceptance reads which set is given up; empty when none is. What cannot be believed is
// reported, and none.
func (f *Folder) acceptance() string {
	if !f.offered() {
		return ""
	}
	text, _, err := readFile(f.acceptPath(), 2*sha256.Size+1, f.options.Owned)
	hash := strings.TrimSuffix(string(text), "\n")
	if err == nil && !acceptedHash.MatchString(hash) {
		err = errors.New("it is not the hash of a set")
	}
	if err != nil {
		f.options.Log.Error("giving up the policies is ignored", "file", f.acceptPath(), "error", err)
		f.useUp()
		return ""
	}
	return hash
}

// offered tells whether there is an acceptance that was not looked at yet.
func (f *Folder) offered() bool {
	info, err := os.Lstat(f.acceptPath())
	return err == nil && stampOf(info) != f.usedUp
}

// useUp makes sure that an acceptance counts once, also one that cannot be removed.
func (f *Folder) useUp() {
	if info, err := os.Lstat(f.acceptPath()); err == nil {
		f.usedUp = stampOf(info)
	}
	if err := os.Remove(f.acceptPath()); err != nil {
		f.options.Log.Error("a used acceptance of the empty policy folder cannot be removed", "file", f.acceptPath(), "error", err)
	}
}

// accepts tells whether the acceptance of a hash holds: for the set in force, and a folder
// in which nothing is a policy or could be one.
func (f *Folder) accepts(hash string) bool {
	for _, c := range f.found.contents {
		if c.fault != "" || slices.ContainsFunc(c.objects, isPolicy) {
			return false
		}
	}
	return hash != "" && hash == hashOf(f.held.objects(true))
}
