package policy

import (
	"fmt"
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
// loosened, and is among the findings either way.
func Compile(sets ...crds.Set) *Snapshot {
	c := &compiler{snapshot: &Snapshot{
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
	return c.snapshot
}

// compiler gathers what belongs to the whole Snapshot.
type compiler struct {
	snapshot *Snapshot
}

func (c *compiler) report(o crds.Object, ignored bool, message string) {
	c.snapshot.findings = append(c.snapshot.findings, Finding{Object: o.ID(), Source: o.Source, Message: message, Ignored: ignored})
}

// origin is one compiled set, before it is laid out by namespace.
type origin struct {
	name     crds.Origin
	faults   map[string][]string // by namespace; "" is every namespace
	policies map[string][]*Policy
	// allow holds what AdmissionAllowlists and enforcing policies exempt, by namespace; ""
	// is every namespace.
	allow map[string]*allowlist
}

// allowlist is the one of a namespace, made when it is first asked for.
func (o *origin) allowlist(namespace string) *allowlist {
	if o.allow[namespace] == nil {
		o.allow[namespace] = &allowlist{}
	}
	return o.allow[namespace]
}

// layers are the origin's layers for a namespace. The name "" stands for a namespace that no object names.
func (o *origin) layers(namespace string) []Layer {
	var layers []Layer
	faults := o.faults[""]
	if namespace != "" {
		faults = append(slices.Clone(faults), o.faults[namespace]...)
	}
	if len(faults) > 0 {
		layers = append(layers, Layer{Name: string(o.name), Origin: o.name, Fault: strings.Join(faults, "; ")})
	}
	var allow []*allowlist
	for _, ns := range slices.Compact([]string{"", namespace}) {
		if a := o.allow[ns]; a != nil {
			allow = append(allow, a)
		}
	}
	policies := o.policies[namespace] // of no namespace there are none
	if len(allow) == 0 && len(policies) == 0 {
		return layers
	}
	return append(layers, Layer{
		Name:       string(o.name) + "/" + kritis.KindGenericAttestationPolicy,
		Origin:     o.name,
		Best:       true,
		Policies:   policies,
		allowlists: allow,
	})
}

// named are all namespaces that any origin says something about, sorted.
func named(origins []*origin) []string {
	seen := make(map[string]bool)
	for _, o := range origins {
		for ns := range o.faults {
			seen[ns] = true
		}
		for ns := range o.policies {
			seen[ns] = true
		}
		for ns := range o.allow {
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
		name:     set.Origin,
		faults:   make(map[string][]string),
		policies: make(map[string][]*Policy),
		allow:    make(map[string]*allowlist),
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
	authorities := make(map[string]*Authority)
	owners := make(map[string]string)
	for i := range set.Objects {
		if obj := &set.Objects[i]; obj.Kind == kritis.KindAttestationAuthority && !obj.UnknownKind {
			a := c.compileAuthority(obj)
			authorities[obj.Namespace+"/"+obj.Name] = a
			c.reportShared(obj, a, owners)
		}
	}
	for i := range set.Objects {
		c.compileObject(o, &set.Objects[i], authorities)
	}
	return o
}

func (c *compiler) compileObject(o *origin, obj *crds.Object, authorities map[string]*Authority) {
	if obj.UnknownKind {
		// A kind or version of our groups that is not known could restrict any namespace.
		c.fault(o, obj, "", obj.Malformed())
		return
	}
	switch obj.Kind {
	case kritis.KindAttestationAuthority, crds.KindNamespace:
	case kritis.KindGenericAttestationPolicy:
		if misplaced(obj) {
			c.fault(o, obj, "", obj.Malformed())
			return
		}
		p := c.compileGAP(o, obj, authorities)
		o.policies[obj.Namespace] = append(o.policies[obj.Namespace], p)
	case kritis.KindAdmissionAllowlist:
		c.compileAllowlist(o, obj)
	case horkos.KindImageRevocation:
		c.compileRevocation(o, obj)
	case horkos.KindImageAttestation:
		if m := obj.Malformed(); m != "" {
			c.report(*obj, true, m)
		}
	case kritis.KindKritisConfig, kritis.KindVulnzSigningPolicy, kritis.KindBuildPolicy, horkos.KindNodeGate:
		c.report(*obj, true, "objects of this kind decide nothing on a node")
	case kritis.KindImageSecurityPolicy:
		namespace := obj.Namespace
		if misplaced(obj) {
			namespace = ""
		}
		c.fault(o, obj, namespace, "this version of horkos cannot judge an ImageSecurityPolicy")
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
	c.report(*obj, false, message)
	o.faults[namespace] = append(o.faults[namespace], obj.ID()+": "+message)
}

func (c *compiler) compileAllowlist(o *origin, obj *crds.Object) {
	if m := obj.Malformed(); m != "" {
		c.report(*obj, true, m)
		return
	}
	spec, ok := obj.Spec.(*kritis.AdmissionAllowlistSpec)
	if !ok {
		return
	}
	for _, e := range spec.Patterns {
		ns := e.Namespace
		if spec.Namespace != "" {
			if ns != "" && ns != spec.Namespace {
				c.report(*obj, true, fmt.Sprintf("pattern %.80q is for namespace %.80q, the object for %.80q", e.NamePattern, ns, spec.Namespace))
				continue
			}
			ns = spec.Namespace
		}
		if err := o.allowlist(ns).add(e.NamePattern, obj.ID(), alibabaDialect); err != nil {
			c.report(*obj, true, err.Error())
		} else if openHost(e.NamePattern) {
			c.report(*obj, false, fmt.Sprintf("open host pattern %q: it matches registries that anybody may own", e.NamePattern))
		}
	}
}

// compileRevocation keeps what digests can be read even of a malformed object: a
// revocation left out would open.
func (c *compiler) compileRevocation(o *origin, obj *crds.Object) {
	if m := obj.Malformed(); m != "" {
		c.report(*obj, false, m)
	}
	spec, ok := obj.Spec.(*horkos.ImageRevocationSpec)
	if !ok {
		return
	}
	for _, text := range spec.Digests {
		d, err := image.ParseDigest(text)
		if err != nil {
			c.report(*obj, false, fmt.Sprintf("spec.digests: %v", err))
			continue
		}
		if have, ok := c.snapshot.revoked[d]; ok && have.Origin == crds.Folder {
			continue
		}
		c.snapshot.revoked[d] = Revocation{Origin: o.name, Object: obj.ID(), Reason: spec.Reason}
	}
}
