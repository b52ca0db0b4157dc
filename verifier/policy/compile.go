package policy

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier/image"
)

// Compile makes a Snapshot of the sets of all origins. It never fails: what cannot be
// understood is in the Snapshot as misconfigured, or left out where it could only have
// loosened, and is among the findings either way. Two objects of one kind, namespace and
// name cannot be.
func Compile(sets ...crds.Set) *Snapshot { return new(Compiler).Compile(sets...) }

// Compiler compiles objects again whenever some of them change. It remembers what the keys of
// the last Compile were read as, by how they are written and also those that could not be,
// so that the change of one object costs no arithmetic on the keys of all others; nothing
// else. The zero value is ready for use, by one goroutine at a time; the Snapshots it gives
// are for all.
type Compiler struct {
	parsed map[writtenSum]parsedKey
}

// Compile gives the same Snapshot as the function of that name.
func (k *Compiler) Compile(sets ...crds.Set) *Snapshot {
	sets = slices.Clone(sets)
	for i := range sets {
		sets[i].Objects = withDuplicates(sets[i].Objects)
	}
	c := &compiler{indexed: make(map[string]*Authority), owned: make(map[*Authority]bool), before: k.parsed, parsed: make(map[writtenSum]parsedKey), snapshot: &Snapshot{
		namespaces: make(map[string][]Layer),
		revoked:    make(map[image.Digest]Revocation),
		byKey:      make(map[string][]*Authority),
	}}
	origins := make([]*origin, 0, len(sets))
	for _, set := range sets {
		origins = append(origins, c.compileOrigin(set))
	}
	for _, o := range origins {
		c.snapshot.elsewhere = append(c.snapshot.elsewhere, o.layers("")...)
	}
	for _, ns := range named(origins) {
		var layers []Layer
		for _, o := range origins {
			layers = append(layers, o.layers(ns)...)
		}
		c.snapshot.namespaces[ns] = layers
	}
	c.snapshot.revision = revision(sets)
	k.parsed = c.parsed
	return c.snapshot
}

// compiler gathers what belongs to the whole Snapshot.
type compiler struct {
	snapshot *Snapshot
	indexed  map[string]*Authority    // by Authority.alike
	owned    map[*Authority]bool      // those whose Namespace is set
	before   map[writtenSum]parsedKey // of the last Compile
	parsed   map[writtenSum]parsedKey
}

// report tells of one thing about an object, by its field where there is one.
func (c *compiler) report(o crds.Object, ignored bool, field, message string) {
	p := crds.Problem{Field: field, Message: message}
	c.snapshot.findings = append(c.snapshot.findings, Finding{Object: o.ID(), Source: o.Source, Message: p.String(), Ignored: ignored, Problems: []crds.Problem{p}})
}

// reportMalformed tells of all that is wrong with a malformed object.
func (c *compiler) reportMalformed(o crds.Object, ignored bool) {
	c.snapshot.findings = append(c.snapshot.findings, Finding{Object: o.ID(), Source: o.Source, Message: o.Malformed(), Ignored: ignored, Problems: o.Problems})
}

// warn reports what can be judged as it stands.
func (c *compiler) warn(o crds.Object, ignored bool, field, message string) {
	c.report(o, ignored, field, message)
	c.snapshot.findings[len(c.snapshot.findings)-1].Warning = true
}

// origin is one compiled set, before it is laid out by namespace.
type origin struct {
	name     crds.Origin
	faults   map[string][]string  // by namespace; "" is every namespace
	fault    string               // told of those of every namespace
	unknown  *crds.Unknown        // nil when its objects are all there are
	gaps     map[string][]*Policy // GenericAttestationPolicies by namespace
	isps     map[string][]*Policy // ImageSecurityPolicies by namespace
	clusters []clusterPolicy
	labels   map[string]map[string]string // of the namespaces that are known

	selections map[string]selection // those of clusters that some namespace is selected by

	authorities map[string]*Authority // by namespace/name

	admits  allowlists // AdmissionAllowlists: from GenericAttestationPolicies and ImageSecurityPolicies
	exempts allowlists // enforcing GenericAttestationPolicies': from those of their namespace
}

// allowlists are by namespace; that of "" is for every namespace.
type allowlists map[string]*allowlist

// of is the one of a namespace, made when it is first asked for.
func (a allowlists) of(namespace string) *allowlist {
	if a[namespace] == nil {
		a[namespace] = &allowlist{}
	}
	return a[namespace]
}

// layers are the origin's layers for a namespace. The name "" stands for a namespace that no object names.
func (o *origin) layers(namespace string) []Layer {
	var layers []Layer
	if o.unknown != nil {
		layers = append(layers, Layer{Name: string(o.name), Origin: o.name, Unknown: o.unknown})
	}
	if o.fault != "" {
		layers = append(layers, Layer{Name: string(o.name), Origin: o.name, Fault: o.fault})
	}
	if own := o.faults[namespace]; namespace != "" && len(own) > 0 {
		layers = append(layers, Layer{Name: string(o.name), Origin: o.name, Fault: told(own)})
	}
	var admits []*allowlist
	for _, a := range []*allowlist{o.admits[""], o.admits[namespace]} {
		if a != nil && !slices.Contains(admits, a) {
			admits = append(admits, a)
		}
	}
	add := func(kind string, l Layer) {
		l.Name, l.Origin = string(o.name)+"/"+kind, o.name
		layers = append(layers, l)
	}
	if selected := o.selected(labels{namespace, o.labels[namespace]}); len(selected.policies) > 0 {
		add(horkos.KindClusterAttestationPolicy, Layer{Policies: selected.policies, scopes: selected.scopes})
	}
	if gaps := o.gaps[namespace]; len(gaps)+len(admits) > 0 {
		add(kritis.KindGenericAttestationPolicy, Layer{Best: true, Policies: gaps, admits: admits, exempts: o.exempts[namespace]})
	}
	if isps := o.isps[namespace]; len(isps) > 0 {
		add(kritis.KindImageSecurityPolicy, Layer{Policies: isps, admits: admits})
	}
	return layers
}

// told joins faults, as many as a message has room for: the findings have them all.
func told(faults []string) string {
	var b strings.Builder
	for i, f := range faults {
		if i > 0 && b.Len()+len(f) > maxFault {
			fmt.Fprintf(&b, "; and %d more", len(faults)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		if len(f) > maxFault {
			f = strings.ToValidUTF8(f[:maxFault], "") + "..."
		}
		b.WriteString(f)
	}
	return b.String()
}

// selection is a list of cluster policies.
type selection struct {
	policies []*Policy
	scopes   *scopes
}

// selected are the cluster policies that may select a namespace. Namespaces that are
// selected by the same ones share the list.
func (o *origin) selected(namespace labels) selection {
	marks := make([]byte, len(o.clusters))
	var policies []*Policy
	for i, p := range o.clusters {
		if p.selector.matches(namespace) {
			marks[i] = 1
			policies = append(policies, p.Policy)
		}
	}
	if shared, ok := o.selections[string(marks)]; ok {
		return shared
	}
	s := selection{policies, newScopes(policies)}
	o.selections[string(marks)] = s
	return s
}

// named are all namespaces that any origin says something about, sorted.
func named(origins []*origin) []string {
	seen := make(map[string]bool)
	for _, o := range origins {
		for ns := range o.faults {
			seen[ns] = true
		}
		for ns := range o.gaps {
			seen[ns] = true
		}
		for ns := range o.isps {
			seen[ns] = true
		}
		for ns := range o.labels {
			seen[ns] = true
		}
		for _, p := range o.clusters {
			for _, ns := range p.selector.names() {
				seen[ns] = true
			}
		}
		for ns := range o.admits {
			seen[ns] = true
		}
	}
	delete(seen, "")
	names := make([]string, 0, len(seen))
	for ns := range seen {
		names = append(names, ns)
	}
	sort.Strings(names)
	return names
}

func (c *compiler) compileOrigin(set crds.Set) *origin {
	o := &origin{
		name:    set.Origin,
		unknown: set.Unknown,
		faults:  make(map[string][]string),
		gaps:    make(map[string][]*Policy),
		isps:    make(map[string][]*Policy),
		labels:  labelsOf(set.Objects),

		selections:  make(map[string]selection),
		authorities: make(map[string]*Authority),
		admits:      make(allowlists),
		exempts:     make(allowlists),
	}
	for _, f := range set.Faults {
		c.snapshot.findings = append(c.snapshot.findings, Finding{Source: f.Source, Message: f.Message})
		text := f.Source + ": " + f.Message
		if f.Namespaces == nil {
			o.faults[""] = append(o.faults[""], text)
		}
		for _, ns := range f.Namespaces {
			o.faults[ns] = append(o.faults[ns], text)
		}
	}
	owners, crowded := make(map[string]string), crowdedOut(set.Objects)
	for i := range set.Objects {
		if obj := &set.Objects[i]; isAuthority(obj) {
			a := c.compileAuthority(obj, crowded[obj])
			if a.Malformed != "" { // which was reported just now
				c.snapshot.findings[len(c.snapshot.findings)-1].Unusable = true
			}
			o.authorities[obj.Namespace+"/"+obj.Name] = a
			c.reportShared(obj, a, owners)
		}
	}
	for i := range set.Objects {
		c.compileObject(o, &set.Objects[i])
	}
	c.limit(o, kritis.KindGenericAttestationPolicy, o.gaps)
	c.limit(o, kritis.KindImageSecurityPolicy, o.isps)
	if n := len(o.clusters); n > MaxClusterPolicies {
		o.clusters = nil
		c.tooMany(o, "", fmt.Sprintf("%d objects of kind %s, at most %d are judged", n, horkos.KindClusterAttestationPolicy, MaxClusterPolicies))
	}
	o.fault = told(o.faults[""])
	return o
}

// limit puts a fault in the place of more policies of a namespace than are judged: whoever
// may write them must not slow the node down for others.
func (c *compiler) limit(o *origin, kind string, policies map[string][]*Policy) {
	for _, ns := range slices.Sorted(maps.Keys(policies)) {
		if n := len(policies[ns]); n > MaxPolicies {
			delete(policies, ns)
			c.tooMany(o, ns, fmt.Sprintf("namespace %s has %d objects of kind %s, at most %d are judged", ns, n, kind, MaxPolicies))
		}
	}
}

func (c *compiler) tooMany(o *origin, namespace, message string) {
	message += ": put what they require into fewer"
	c.snapshot.findings = append(c.snapshot.findings, Finding{Source: string(o.name), Message: message, Problems: []crds.Problem{{Message: message}}})
	o.faults[namespace] = append(o.faults[namespace], message)
}

func (c *compiler) compileObject(o *origin, obj *crds.Object) {
	if obj.UnknownKind {
		// A kind or version of our groups that is not known could restrict any namespace.
		c.fault(o, obj, "", obj.Malformed())
		return
	}
	switch obj.Kind {
	case kritis.KindAttestationAuthority:
	case crds.KindNamespace:
		if len(obj.Problems) > 0 {
			c.reportMalformed(*obj, true) // its labels are not known
		}
	case kritis.KindGenericAttestationPolicy, kritis.KindImageSecurityPolicy:
		switch {
		case misplaced(obj):
			c.fault(o, obj, "", obj.Malformed())
		case obj.Kind == kritis.KindGenericAttestationPolicy:
			o.gaps[obj.Namespace] = append(o.gaps[obj.Namespace], c.compileGAP(o, obj))
		default:
			o.isps[obj.Namespace] = append(o.isps[obj.Namespace], c.compileISP(o, obj))
		}
	case horkos.KindClusterAttestationPolicy:
		o.clusters = append(o.clusters, c.compileCAP(o, obj))
	case kritis.KindAdmissionAllowlist:
		c.compileAllowlist(o, obj)
	case horkos.KindImageRevocation:
		c.compileRevocation(o, obj)
	case horkos.KindImageAttestation:
		if len(obj.Problems) > 0 {
			c.reportMalformed(*obj, true)
		}
	case kritis.KindKritisConfig, kritis.KindVulnzSigningPolicy, kritis.KindBuildPolicy, horkos.KindNodeGate:
		if len(obj.Problems) > 0 {
			c.reportMalformed(*obj, true)
		}
		c.warn(*obj, true, "", "objects of this kind decide nothing on a node")
	default:
		c.fault(o, obj, "", "this version of horkos cannot judge objects of "+obj.APIVersion+" "+obj.Kind)
	}
}

// misplaced tells whether an object is in a namespace that cannot be. Nobody can say
// which one was meant.
func misplaced(obj *crds.Object) bool {
	return slices.ContainsFunc(obj.Problems, func(p crds.Problem) bool { return p.Field == "metadata.namespace" })
}

// fault makes a namespace, or with "" the whole origin, misconfigured because of an object.
func (c *compiler) fault(o *origin, obj *crds.Object, namespace, message string) {
	if len(obj.Problems) > 0 && message == obj.Malformed() {
		c.reportMalformed(*obj, false)
	} else {
		c.report(*obj, false, "", message)
	}
	if message != obj.Malformed() { // which names it
		message = obj.ID() + ": " + message
	}
	o.faults[namespace] = append(o.faults[namespace], message)
}

func (c *compiler) compileAllowlist(o *origin, obj *crds.Object) {
	if len(obj.Problems) > 0 {
		c.reportMalformed(*obj, true)
		return
	}
	spec, ok := obj.Spec.(*kritis.AdmissionAllowlistSpec)
	if !ok {
		return
	}
	for i, e := range spec.Patterns {
		at := fmt.Sprintf("spec.patterns[%d]", i)
		ns := e.Namespace
		if spec.Namespace != "" {
			if ns != "" && ns != spec.Namespace {
				c.report(*obj, true, at, fmt.Sprintf("pattern %.80q is for namespace %.80q, the object for %.80q", e.NamePattern, ns, spec.Namespace))
				continue
			}
			ns = spec.Namespace
		}
		if err := o.admits.of(ns).add(e.NamePattern, obj.ID(), alibabaDialect); err != nil {
			c.report(*obj, true, at, err.Error())
		} else if openHost(e.NamePattern) {
			c.warn(*obj, false, at, fmt.Sprintf("open host pattern %q: it matches registries that anybody may own", e.NamePattern))
		}
	}
}
