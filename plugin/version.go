package plugin

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrCannotEnforce is what a runtime is that does not ask validators: nothing could make it fail closed.
var ErrCannotEnforce = errors.New("it cannot be made to fail closed: containerd 2.2 and later can enforce; elsewhere use --enforcement audit")

// CanEnforce tells whether a runtime asks validators, and so can be made to fail closed: containerd 2.2 and
// later. The error is ErrCannotEnforce.
func CanEnforce(runtime, version string) error {
	if runtime != "containerd" {
		return fmt.Errorf("%s %s: %w", runtime, version, ErrCannotEnforce)
	}
	release, ok := numbers(version, 2)
	if !ok {
		return fmt.Errorf("the version %q is not understood: %w", version, ErrCannotEnforce)
	}
	if slices.Compare(release, []int{2, 2}) < 0 {
		return fmt.Errorf("containerd %s has no NRI validators: %w", version, ErrCannotEnforce)
	}
	return nil
}

// skipsTheDead tells whether a containerd, by its version and its NRI's as the stub gives
// it, does not ask a validator whose connection it knows to be closed: NRI from 0.12.4 on.
// Whatever is not known to be older does, for to take an older one for it costs a round
// trip, and the contrary a container that nobody judged.
func skipsTheDead(containerd, nri string) bool {
	release, ok := numbers(nri, 3)
	if nri != "" && !ok || slices.Compare(release, []int{0, 12, 4}) >= 0 {
		return true
	}
	if slices.Compare(release, []int{0, 12, 0}) >= 0 {
		return false
	}
	// Before 0.12 NRI did not tell its version, and the stub may take a runtime that does not
	// tell for the last of those. Only of containerd 2.2 that is true.
	release, ok = numbers(containerd, 2)
	return !ok || slices.Compare(release, []int{2, 2}) > 0
}

// numbers gives the first n numbers of a version like v2.2.0-rc.1.
func numbers(version string, n int) ([]int, bool) {
	version = strings.TrimPrefix(version, "v")
	if end := strings.IndexAny(version, "-+~"); end >= 0 {
		version = version[:end]
	}
	parts := strings.Split(version, ".")
	if len(parts) < n {
		return nil, false
	}
	release := make([]int, n)
	for i := range release {
		var err error
		if release[i], err = strconv.Atoi(parts[i]); err != nil {
			return nil, false
		}
	}
	return release, true
}
