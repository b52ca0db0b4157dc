package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strconv"
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
	// ownAllow are the allowlists of the enforcing policies of a namespace; allow those of
	// AdmissionAllowlists, "" being every namespace.
	ownAllow map[string]*allowlist
	allow    map[string]*allowlist
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
	allow := o.allow[""]
	var policies []*Policy
	if namespace != "" {
		allow = allow.with(o.allow[namespace]).with(o.ownAllow[namespace])
		policies = o.policies[namespace]
	}
	if allow == nil && len(policies) == 0 {
		return layers
	}
	return append(layers, Layer{
		Name:      string(o.name) + "/" + kritis.KindGenericAttestationPolicy,
		Origin:    o.name,
		Best:      true,
		Policies:  policies,
		allowlist: allow,
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
		ownAllow: make(map[string]*allowlist),
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
	for i := range set.Objects {
		if obj := &set.Objects[i]; obj.Kind == kritis.KindAttestationAuthority {
			authorities[obj.Namespace+"/"+obj.Name] = c.compileAuthority(obj)
		}
	}
	for i := range set.Objects {
		c.compileObject(o, &set.Objects[i], authorities)
	}
	return o
}

func (c *compiler) compileObject(o *origin, obj *crds.Object, authorities map[string]*Authority) {
	switch obj.Kind {
	case kritis.KindAttestationAuthority, "Namespace":
	case kritis.KindGenericAttestationPolicy:
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
		c.fault(o, obj, obj.Namespace, "this version of horkos cannot judge an ImageSecurityPolicy")
	default:
		// A kind of our groups that is not understood could restrict any namespace.
		message := "this version of horkos does not know " + obj.APIVersion + " " + obj.Kind
		if m := obj.Malformed(); m != "" {
			message = m
		}
		c.fault(o, obj, "", message)
	}
}

// fault makes a namespace, or with "" the whole origin, misconfigured because of an object.
func (c *compiler) fault(o *origin, obj *crds.Object, namespace, message string) {
	c.report(*obj, false, message)
	o.faults[namespace] = append(o.faults[namespace], obj.ID()+": "+message)
}

func (c *compiler) compileGAP(o *origin, obj *crds.Object, authorities map[string]*Authority) *Policy {
	p := &Policy{Kind: obj.Kind, Namespace: obj.Namespace, Name: obj.Name, Enforcement: Enforce}
	spec, _ := obj.Spec.(*kritis.GenericAttestationPolicySpec)
	if spec == nil {
		spec = &kritis.GenericAttestationPolicySpec{}
	}
	problems := obj.Problems
	bad := func(field, format string, args ...any) {
		problems = append(problems[:len(problems):len(problems)], crds.Problem{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	switch e := Enforcement(spec.Enforcement); e {
	case "", Enforce:
	case Warn, Audit:
		p.Enforcement = e
	default:
		bad("spec.enforcement", "want Enforce, Warn or Audit, not %q", e)
	}
	names := spec.AttestationAuthorityNames
	switch {
	case len(names) == 0:
		bad("spec.attestationAuthorityNames", "at least one authority is needed")
	case len(names) > MaxAuthorities:
		bad("spec.attestationAuthorityNames", "%d authorities, at most %d are allowed", len(names), MaxAuthorities)
		names = nil
	}
	var err error
	if p.Require, p.Distinct, err = require(spec.Require, len(names)); err != nil {
		bad("spec.require", "%v", err)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"spec.maximumAttestationAge", spec.MaximumAttestationAge != ""},
		{"spec.notBefore", spec.NotBefore != ""},
		{"spec.emergencyAuthorityNames", len(spec.EmergencyAuthorityNames) > 0},
	} {
		if f.set {
			bad(f.name, "this version of horkos cannot judge it")
		}
	}
	for _, name := range names {
		a, ok := authorities[obj.Namespace+"/"+name]
		if !ok {
			a = &Authority{Name: name, Missing: true}
			c.report(*obj, false, "AttestationAuthority "+obj.Namespace+"/"+name+" does not exist")
		}
		p.Authorities = append(p.Authorities, a)
	}
	if p.Enforcement == Enforce {
		own := &allowlist{}
		for _, e := range spec.AdmissionAllowlistPatterns {
			if err := own.add(e.NamePattern, obj.ID(), kritisDialect); err != nil {
				c.report(*obj, true, err.Error())
			}
		}
		o.ownAllow[obj.Namespace] = o.ownAllow[obj.Namespace].with(own)
	}
	if len(problems) > 0 {
		p.Malformed = crds.Object{Kind: obj.Kind, Namespace: obj.Namespace, Name: obj.Name, Source: obj.Source, Problems: problems}.Malformed()
		c.report(*obj, false, p.Malformed)
	}
	return p
}

// require reads All, Any or a number of at most n authorities.
func require(v *kritis.IntOrString, n int) (count int, distinct bool, err error) {
	if v == nil {
		return n, false, nil
	}
	switch *v {
	case "All":
		return n, false, nil
	case "Any":
		return 1, false, nil
	}
	count, err = strconv.Atoi(string(*v))
	switch {
	case err != nil:
		return n, false, fmt.Errorf("want All, Any or a number, not %q", string(*v))
	case count < 1:
		return n, false, fmt.Errorf("%d is less than 1", count)
	case count > n:
		return n, false, fmt.Errorf("%d is more than the %d authorities of the policy", count, n)
	}
	return count, true, nil
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
				c.report(*obj, true, fmt.Sprintf("pattern %q is for namespace %s, the object for %s", e.NamePattern, ns, spec.Namespace))
				continue
			}
			ns = spec.Namespace
		}
		l := o.allow[ns]
		if l == nil {
			l = &allowlist{}
			o.allow[ns] = l
		}
		if err := l.add(e.NamePattern, obj.ID(), alibabaDialect); err != nil {
			c.report(*obj, true, err.Error())
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
			c.report(*obj, false, fmt.Sprintf("spec.digests: %q: %v", text, err))
			continue
		}
		if have, ok := c.snapshot.revoked[d]; ok && have.Origin == crds.Folder {
			continue
		}
		c.snapshot.revoked[d] = Revocation{Origin: o.name, Object: obj.ID(), Reason: spec.Reason}
	}
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
			lines = append(lines, string(set.Origin)+"/"+string(obj.Canonical()))
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
