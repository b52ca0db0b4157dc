package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"sort"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// defaulted is an object with the defaults of its spec written out, so that leaving one
// out and writing it are the same.
func defaulted(obj crds.Object) crds.Object {
	if len(obj.Problems) > 0 {
		return obj
	}
	switch spec := obj.Spec.(type) {
	case *kritis.GenericAttestationPolicySpec:
		s, all := *spec, kritis.IntOrString("All")
		if s.Enforcement == "" {
			s.Enforcement = string(Enforce)
		}
		if s.Require == nil {
			s.Require = &all
		}
		obj.Spec = &s
	case *kritis.AttestationAuthoritySpec:
		s, yes := *spec, true
		if s.AcceptExpiredKeys == nil {
			s.AcceptExpiredKeys = &yes
		}
		obj.Spec = &s
	}
	return obj
}

// revision is a digest of everything that decides, after decoding, in an order of its own.
func revision(sets []crds.Set) string {
	var lines []string
	for _, set := range sets {
		for _, obj := range set.Objects {
			switch obj.Kind {
			case horkos.KindImageAttestation, horkos.KindNodeGate:
				continue // evidence and status are not policy
			}
			lines = append(lines, string(set.Origin)+"/"+string(defaulted(obj).Canonical()))
		}
	}
	sort.Strings(lines)
	h := sha256.New()
	for _, l := range lines {
		h.Write([]byte(l))
		h.Write([]byte{'\n'})
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
