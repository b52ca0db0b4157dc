package objects

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
)

// older is a collection that the cluster once had newer.
func (r *replica) older() *collection {
	for _, k := range r.kinds {
		if k.found != nil && k.told < k.version {
			return k
		}
	}
	return nil
}

// covered tells whether everything that is held is found as it is held.
func (r *replica) covered() bool {
	for _, k := range r.kinds {
		if k.found == nil && k.unserved && len(k.held) == 0 {
			continue
		}
		if k.found == nil {
			return false
		}
		if k.kind == crds.KindNamespace {
			continue
		}
		for at, o := range k.held {
			if revokes(o) && r.added[at] {
				continue
			}
			if f, ok := k.found[at]; ok && revokes(o) && withdraws(f, o) {
				continue
			}
			if f, ok := k.found[at]; !ok || !bytes.Equal(f.Raw, o.Raw) {
				return false
			}
		}
	}
	return true
}

// newest is the highest resource version that was told.
func (r *replica) newest() uint64 {
	var n uint64
	for _, k := range r.kinds {
		n = max(n, k.told)
	}
	return n
}

// addRevocations puts those in force that are found: they can only tighten.
func (r *replica) addRevocations() {
	k := r.kind(resourceOf(horkos.KindImageRevocation).name())
	for at, o := range k.found {
		old, ok := k.held[at]
		switch {
		case ok && !withdraws(old, o):
			k.held[at] = withdrawing(old, o, k.resource)
		case !ok:
			k.held[at] = o
			if r.added == nil {
				r.added = make(map[key]bool)
			}
			r.added[at] = true
		}
	}
}

// digests are those that a revocation withdraws.
func digests(o crds.Object) []string {
	var r struct {
		Spec struct {
			Digests []string `json:"digests"`
		} `json:"spec"`
	}
	_ = json.Unmarshal(o.Raw, &r) // of what cannot be read it is known already
	return r.Spec.Digests
}

// withdraws tells whether a revocation withdraws all that another does.
func withdraws(o, other crds.Object) bool {
	has := digests(o)
	return bytes.Equal(o.Raw, other.Raw) || (len(other.Problems) == 0 && !slices.ContainsFunc(digests(other), func(d string) bool { return !slices.Contains(has, d) }))
}

// withdrawing is a revocation that withdraws what another does too.
func withdrawing(o, other crds.Object, r resource) crds.Object {
	both := append(digests(o), digests(other)...)
	slices.Sort(both)
	raw, _ := json.Marshal(map[string]any{"apiVersion": o.APIVersion, "kind": o.Kind, "metadata": map[string]string{"name": o.Name}, "spec": map[string]any{"digests": slices.Compact(both)}})
	if merged, err := decodeOne(raw, r); err == nil {
		return merged
	}
	return stub(o)
}
