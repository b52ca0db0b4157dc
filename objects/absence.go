package objects

import (
	"encoding/json"
	"slices"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// vanished is the rule that absence is not permission: an origin that enforced something
// and holds no policy at all any more is not believed, and its last objects stay in force
// until policies come back. To stop on purpose, an operator sets policies to Audit first.
// Revocations stand for themselves: an origin may hold nothing else.
func vanished(last, now []crds.Object) bool {
	if slices.ContainsFunc(now, isPolicy) {
		return false
	}
	return slices.ContainsFunc(last, demands) || (slices.ContainsFunc(last, revokes) && !slices.ContainsFunc(now, revokes))
}

// enforces tells whether anything among the objects refuses images.
func enforces(objects []crds.Object) bool {
	return slices.ContainsFunc(objects, revokes) || slices.ContainsFunc(objects, demands)
}

// demands tells whether an object is a policy that is not Warn or Audit. What cannot be read counts.
func demands(o crds.Object) bool { return isPolicy(o) && !onlyReports(o) }

func revokes(o crds.Object) bool { return o.Kind == horkos.KindImageRevocation }

// isPolicy tells whether an object says what must be attested. A kind that is not known may.
func isPolicy(o crds.Object) bool {
	switch o.Kind {
	case kritis.KindGenericAttestationPolicy, kritis.KindImageSecurityPolicy,
		horkos.KindClusterAttestationPolicy, crds.KindTrustPolicy:
		return true
	}
	return o.UnknownKind
}

// onlyReports tells whether a policy is sure to refuse nothing. It looks at the object as
// it was written: policies of kinds that are not built yet have no other form.
func onlyReports(o crds.Object) bool {
	var policy struct {
		Spec struct {
			Enforcement string `json:"enforcement"`
		} `json:"spec"`
	}
	if o.UnknownKind || len(o.Problems) > 0 || json.Unmarshal(o.Raw, &policy) != nil {
		return false
	}
	return policy.Spec.Enforcement == "Warn" || policy.Spec.Enforcement == "Audit"
}
