package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
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

// acceptClusterName is the same for what stays in force of the cluster.
const acceptClusterName = "accept-empty-cluster"

// acceptedHash is what the file may hold.
var acceptedHash = regexp.MustCompile(`^[0-9a-f]{64}$`)

// KeptInfo describes what the kept copy of an origin holds: the set that is in force.
type KeptInfo struct {
	Hash    string // of the set, for AcceptEmpty: SHA-256, 64 hex digits
	Objects int
	Names   []string // of the objects, as crds.Object.ID
	Absent  bool     // the origin held no policy any more when this was kept
}

// Kept reads the kept copy of an origin in a state folder. The state folder and the copy
// must belong to root and be writable by nobody else; os.ErrNotExist is in the chain of the
// error when nothing is kept.
func Kept(stateDir string, origin crds.Origin) (KeptInfo, error) {
	if err := checkState(stateDir, true); err != nil {
		return KeptInfo{}, fmt.Errorf("state folder: %w", err)
	}
	objects, absent, err := keptObjects(stateDir, origin)
	if err != nil {
		return KeptInfo{}, fmt.Errorf("read the kept copy of the %s's policies: %w", origin, err)
	}
	info := KeptInfo{Hash: hashOf(objects), Objects: len(objects), Absent: absent}
	for _, o := range objects {
		info.Names = append(info.Names, o.ID())
	}
	return info, nil
}

func keptObjects(stateDir string, origin crds.Origin) (objects []crds.Object, absent bool, err error) {
	if origin == crds.Cluster {
		r, _, err := readReplica(stateDir, true)
		if err != nil {
			return nil, false, err
		}
		return r.accountable(), r.absent, nil
	}
	kept, absent, err := readKept(stateDir, true)
	return kept.objects(true), absent, err
}

// AcceptEmpty gives up the set with that hash: the daemon takes the origin as it is if that
// set is in force when it looks, and a folder if it holds no policy. The state folder must
// belong to root and be writable by nobody else.
func AcceptEmpty(stateDir string, origin crds.Origin, hash string) error {
	if !acceptedHash.MatchString(hash) {
		return fmt.Errorf("accept the empty %s: %q is not the hash of a set", origin, hash)
	}
	if err := checkState(stateDir, true); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	name := acceptName
	if origin == crds.Cluster {
		name = acceptClusterName
	}
	if err := state.Replace(stateDir, name, []byte(hash+"\n")); err != nil {
		return fmt.Errorf("accept the empty %s: %w", origin, err)
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

// acceptance is such a file of the state folder.
type acceptance struct {
	path   string
	owned  bool
	log    *slog.Logger
	usedUp stamp // of the last that was looked at
}

// read gives which set is given up; empty when none is. What cannot be believed is
// reported, and none.
func (a *acceptance) read() string {
	if !a.offered() {
		return ""
	}
	text, _, err := readFile(a.path, 2*sha256.Size+1, a.owned)
	hash := strings.TrimSuffix(string(text), "\n")
	if err == nil && !acceptedHash.MatchString(hash) {
		err = errors.New("it is not the hash of a set")
	}
	if err != nil {
		a.log.Error("giving up the policies is ignored", "file", a.path, "error", err)
		a.useUp()
		return ""
	}
	return hash
}

// offered tells whether there is an acceptance that was not looked at yet.
func (a *acceptance) offered() bool {
	info, err := os.Lstat(a.path)
	return err == nil && stampOf(info) != a.usedUp
}

// useUp makes sure that an acceptance counts once, also one that cannot be removed.
func (a *acceptance) useUp() {
	if info, err := os.Lstat(a.path); err == nil {
		a.usedUp = stampOf(info)
	}
	if err := os.Remove(a.path); err != nil {
		a.log.Error("a used acceptance of what is empty cannot be removed", "file", a.path, "error", err)
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
