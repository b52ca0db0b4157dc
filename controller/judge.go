package controller

import (
	"fmt"
	"slices"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier/policy"
)

// maxMessage bounds the message of a condition and of an event, which the API holds to 1 KiB.
const maxMessage = 1024

// Verdict is what is to be said of an object.
type Verdict struct {
	Ready   bool
	Reason  string
	Message string

	Warning        string // a reason; empty without a warning
	WarningMessage string
}

// Judge compiles the objects of the cluster, as a node does, and says of each what came of
// it, by its ID. Objects are to be in an order that is always the same: of two that share a
// key the later one is warned of. The compiler is the caller's, to remember keys from one time
// to the next.
func Judge(compiler *policy.Compiler, objects []crds.Object) map[string]Verdict {
	snap := compiler.Compile(crds.Set{Origin: crds.Cluster, Objects: objects})
	found := make(map[string][]policy.Finding)
	for _, f := range snap.Findings() {
		found[f.Object] = append(found[f.Object], f)
	}
	w := newWorld(objects, snap, found)
	verdicts := make(map[string]Verdict, len(objects))
	for i := range objects {
		verdicts[objects[i].ID()] = w.judge(&objects[i], found[objects[i].ID()])
	}
	return verdicts
}

// world is what an object is judged in.
type world struct {
	authorities map[string]*crds.Object // by namespace/name
	unusable    map[string]bool         // of those: nothing can be verified by them
	policies    map[string]int          // how many there are of a kind in a namespace
	wants       map[string]string       // by ID of a policy: what no source brings
}

func newWorld(objects []crds.Object, snap *policy.Snapshot, found map[string][]policy.Finding) *world {
	w := &world{authorities: make(map[string]*crds.Object), unusable: make(map[string]bool), policies: make(map[string]int), wants: make(map[string]string)}
	looked := make(map[string]bool)
	for i := range objects {
		o := &objects[i]
		switch o.Kind {
		case kritis.KindAttestationAuthority:
			w.authorities[o.Namespace+"/"+o.Name] = o
			w.unusable[o.Namespace+"/"+o.Name] = slices.ContainsFunc(found[o.ID()], func(f policy.Finding) bool { return f.Unusable })
		case kritis.KindGenericAttestationPolicy, horkos.KindClusterAttestationPolicy:
			w.policies[o.Kind+" "+o.Namespace]++
		case kritis.KindImageSecurityPolicy:
			w.policies[o.Kind+" "+o.Namespace]++
			if !looked[o.Namespace] {
				looked[o.Namespace] = true
				w.readWants(snap.Layers(o.Namespace))
			}
		}
	}
	return w
}

func (w *world) readWants(layers []policy.Layer) {
	for _, l := range layers {
		for _, p := range l.Policies {
			if p.Wants != "" {
				w.wants[p.ID()] = p.Wants
			}
		}
	}
}

// note is one thing to say about an object, and its reason.
type note struct{ reason, text string }

func (w *world) judge(o *crds.Object, findings []policy.Finding) Verdict {
	var errors, warnings []note
	missing := w.missing(o)
	for _, f := range findings {
		for _, p := range f.Problems {
			if f.Warning {
				warnings = append(warnings, note{warningReason(o.Kind, p.Field), p.String()})
			} else {
				errors = append(errors, note{errorReason(o, p.Field, missing), p.String()})
			}
		}
	}
	errors = append(errors, w.beyond(o)...)
	v := Verdict{Ready: true, Reason: Accepted, Message: "it is in force"}
	if len(errors) > 0 {
		slices.SortStableFunc(errors, func(a, b note) int { return slices.Index(gravity, a.reason) - slices.Index(gravity, b.reason) })
		v = Verdict{Reason: errors[0].reason}
		v.Message = tell(errors, advice(o, errors[0].reason))
	}
	if len(warnings) > 0 {
		v.Warning, v.WarningMessage = warnings[0].reason, tell(warnings, "")
	}
	return v
}

// beyond is what compiling does not find in the object itself.
func (w *world) beyond(o *crds.Object) []note {
	var notes []note
	if n, limit := w.policies[o.Kind+" "+o.Namespace], limitOf(o.Kind); limit > 0 && n > limit {
		where := "the cluster"
		if o.Namespace != "" {
			where = "namespace " + o.Namespace
		}
		notes = append(notes, note{TooMany, fmt.Sprintf("%s has %d objects of kind %s, at most %d are judged", where, n, o.Kind, limit)})
	}
	if wants := w.wants[o.ID()]; wants != "" {
		notes = append(notes, note{NotSupported, "it wants " + wants + ", which this version has no source for"})
	}
	for _, r := range references(o) {
		if w.unusable[r.authority] {
			notes = append(notes, note{AuthorityUnusable, r.field + ": AttestationAuthority " + r.authority + " has no key to verify with"})
		}
	}
	return notes
}

func limitOf(kind string) int {
	switch kind {
	case kritis.KindGenericAttestationPolicy, kritis.KindImageSecurityPolicy:
		return policy.MaxPolicies
	case horkos.KindClusterAttestationPolicy:
		return policy.MaxClusterPolicies
	}
	return 0
}

// reference is a field in which a policy names an authority.
type reference struct{ field, authority string }

// references are the authorities that a policy names, those of other namespaces by reference.
func references(o *crds.Object) []reference {
	var all []reference
	names := func(field string, names []string) {
		for i, name := range names {
			all = append(all, reference{fmt.Sprintf("%s[%d]", field, i), o.Namespace + "/" + name})
		}
	}
	listed := func(field string, list []horkos.Authority) {
		for i, a := range list {
			if a.Ref != nil && a.Ref.Namespace != "" && a.Ref.Name != "" {
				all = append(all, reference{fmt.Sprintf("%s[%d].ref", field, i), a.Ref.Namespace + "/" + a.Ref.Name})
			}
		}
	}
	switch spec := o.Spec.(type) {
	case *kritis.GenericAttestationPolicySpec:
		names("spec.attestationAuthorityNames", spec.AttestationAuthorityNames)
		names("spec.emergencyAuthorityNames", spec.EmergencyAuthorityNames)
	case *kritis.ImageSecurityPolicySpec:
		of := spec.AttestationAuthorityNames
		if spec.AttestationAuthorityName != "" { // counted as the first, as package policy does
			of = append([]string{spec.AttestationAuthorityName}, of...)
		}
		names("spec.attestationAuthorityNames", of)
		names("spec.emergencyAuthorityNames", spec.EmergencyAuthorityNames)
	case *horkos.ClusterAttestationPolicySpec:
		listed("spec.authorities", spec.Authorities)
		listed("spec.emergencyAuthorities", spec.EmergencyAuthorities)
	}
	return all
}

// missing are the fields of a policy that name an authority that does not exist.
func (w *world) missing(o *crds.Object) map[string]bool {
	fields := make(map[string]bool)
	for _, r := range references(o) {
		if w.authorities[r.authority] == nil {
			fields[r.field] = true
		}
	}
	return fields
}

// errorReason says, by the field that a problem is about, what sort of problem it is.
func errorReason(o *crds.Object, field string, missing map[string]bool) string {
	switch {
	case o.UnknownKind || (o.Spec == nil && len(o.Problems) == 0):
		return NotSupported
	case len(o.Problems) > 0:
		return Malformed
	case missing[field]:
		return AuthorityNotFound
	case isKey(o.Kind, field):
		return KeyUnparsable
	case isExemption(o.Kind, field):
		return PatternUnreadable
	}
	return Malformed
}

// isKey tells whether a field is a key of an authority, or is in one.
func isKey(kind, field string) bool {
	switch kind {
	case kritis.KindAttestationAuthority:
		return strings.HasPrefix(field, "spec.publicKey")
	case horkos.KindClusterAttestationPolicy:
		_, of, ok := strings.Cut(field, "].")
		return ok && strings.HasPrefix(of, "publicKeys[")
	}
	return false
}

// isExemption tells whether a field is an entry of an allowlist, which is left out where it
// cannot be read.
func isExemption(kind, field string) bool {
	list, _, ok := strings.Cut(field, "[")
	if !ok {
		return false
	}
	switch kind {
	case kritis.KindAdmissionAllowlist:
		return list == "spec.patterns"
	case kritis.KindGenericAttestationPolicy:
		return list == "spec.admissionAllowlistPatterns"
	case kritis.KindImageSecurityPolicy:
		return list == "spec.imageAllowlist"
	case horkos.KindClusterAttestationPolicy:
		return list == "spec.allowlist"
	}
	return false
}

// warningReason says the same of a warning.
func warningReason(kind, field string) string {
	list, _, entry := strings.Cut(field, "[")
	switch {
	case kind == kritis.KindAdmissionAllowlist && list == "spec.patterns":
		return OpenHostPattern
	case kind == kritis.KindAttestationAuthority && field == "":
		return KeysShared
	case !entry && (list == "spec.authorities" || list == "spec.emergencyAuthorities" || list == "spec.emergencyAuthorityNames"):
		return KeysShared
	case entry && (list == "spec.attestationAuthorityNames" || list == "spec.emergencyAuthorityNames"):
		return NamedTwice
	case field == "spec.namespaceSelector":
		return SelectsNothing
	case field == "spec.require":
		return NeverSatisfied
	case entry && list == "spec.images":
		return ScopeNarrow
	}
	return HardlyMeant
}

// advice says what follows from a reason, and what to do.
func advice(o *crds.Object, reason string) string {
	switch reason {
	case Malformed:
		switch o.Kind {
		case kritis.KindAdmissionAllowlist:
			return "correct it: until then it exempts nothing"
		case horkos.KindImageRevocation:
			return "correct it: until then only the digests that can be read are revoked"
		case kritis.KindAttestationAuthority:
			return "correct it: until then nothing that it attests counts"
		}
		return "correct it: until then what it governs is refused"
	case NotSupported:
		if o.Spec == nil {
			return "delete it, or update horkos: until then what the cluster's policies govern is refused"
		}
		return "delete it, or update horkos: until then what it governs is refused"
	case TooMany:
		return "put what they require into fewer: until then what they govern is refused"
	case KeyUnparsable:
		return "correct or remove the key: until then nothing that it signed counts"
	case AuthorityNotFound:
		return "apply the authority, or take its name out of the policy"
	case AuthorityUnusable:
		return "see the conditions of that authority"
	case PatternUnreadable:
		return "correct or remove the pattern: it exempts nothing"
	}
	return ""
}

// tell joins notes, as many as a message has room for, and puts the advice behind them.
func tell(notes []note, advice string) string {
	if advice != "" {
		advice = ". To do: " + advice
	}
	const more = "; and 0000 more"
	room := maxMessage - len(advice) - len(more)
	var b strings.Builder
	for i, n := range notes {
		text := n.text
		if i > 0 {
			text = "; " + text
		}
		if b.Len()+len(text) > room && i > 0 {
			fmt.Fprintf(&b, "; and %d more", min(len(notes)-i, 9999))
			break
		}
		if len(text) > room {
			text = strings.ToValidUTF8(text[:room-len("...")], "") + "..."
		}
		b.WriteString(text)
	}
	return b.String() + advice
}
