package policy

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/image"
)

// clusterPolicy is a compiled ClusterAttestationPolicy and the namespaces it selects.
type clusterPolicy struct {
	*Policy
	selector selector
}

// compileCAP reads a ClusterAttestationPolicy. A malformed one makes every namespace
// misconfigured that its selector may match.
func (c *compiler) compileCAP(o *origin, obj *crds.Object) clusterPolicy {
	spec, _ := obj.Spec.(*horkos.ClusterAttestationPolicySpec)
	if spec == nil {
		spec = &horkos.ClusterAttestationPolicySpec{}
	}
	d := c.draft(obj)
	var authorities []*Authority
	if n := len(spec.Authorities); n < 1 || n > MaxAuthorities {
		d.problem("spec.authorities", "%d authorities, want 1 to %d", n, MaxAuthorities)
	} else {
		authorities = d.listed(o, "spec.authorities", spec.Authorities)
	}
	d.terms(terms{spec.Enforcement, spec.Require, spec.MaximumAttestationAge, spec.NotBefore}, authorities)
	if n := len(spec.EmergencyAuthorities); n > MaxAuthorities {
		d.problem("spec.emergencyAuthorities", "%d authorities, at most %d are allowed", n, MaxAuthorities)
	} else {
		d.policy.Emergency = d.listed(o, "spec.emergencyAuthorities", spec.EmergencyAuthorities)
	}
	d.reportShared(authorities)
	d.scope(spec.Images)
	d.policy.exempts = &allowlist{}
	for i, e := range spec.Allowlist {
		if err := d.policy.exempts.add(e.NamePattern, obj.ID(), kritisDialect); err != nil {
			c.report(*obj, true, fmt.Sprintf("spec.allowlist[%d]", i), err.Error())
		}
	}
	selector, err := compileSelector(spec.NamespaceSelector)
	if err != nil {
		d.problem("spec.namespaceSelector", "%v", err)
	}
	if err == nil && selector.empty() {
		c.warn(*obj, false, "spec.namespaceSelector", "its conditions exclude one another: it selects no namespace")
	}
	if unsure(obj) {
		selector.conditions = nil
	}
	return clusterPolicy{d.done(), selector}
}

// reportShared tells of authorities of the policy with a key in common.
func (d *draft) reportShared(authorities []*Authority) {
	owners := make(map[string]string)
	for _, a := range authorities {
		for _, key := range a.distinct {
			if other, shared := owners[key]; shared && other != a.Name {
				d.c.warn(*d.obj, false, "spec.authorities", fmt.Sprintf("%.80s and %.80s have a key in common: they share attestations", other, a.Name))
			}
			owners[key] = a.Name
		}
	}
}

// unsure tells whether a selector may have been read wrongly: then it selects every namespace.
func unsure(obj *crds.Object) bool {
	for _, p := range obj.Problems {
		if p.Field == "" || p.Field == "spec" || strings.HasPrefix(p.Field, "spec.namespaceSelector") {
			return true
		}
	}
	return obj.Spec == nil
}

// scope reads the patterns of the images that a policy is about. One that cannot be read
// would make the scope smaller than it was meant.
func (d *draft) scope(patterns []string) {
	if len(patterns) == 0 {
		return
	}
	if len(patterns) > MaxPatterns {
		d.problem("spec.images", "%d patterns, at most %d are allowed", len(patterns), MaxPatterns)
		return
	}
	d.policy.scope = &allowlist{}
	for i, p := range patterns {
		if err := d.policy.scope.add(p, d.obj.ID(), scopeDialect); err != nil {
			d.problem(fmt.Sprintf("spec.images[%d]", i), "%v", err)
			continue
		}
		if ref, err := image.Parse(p); err == nil && ref.Digest == "" && !strings.HasSuffix(p, ":"+ref.Tag) {
			d.c.warn(*d.obj, false, fmt.Sprintf("spec.images[%d]", i), fmt.Sprintf("%q is all names by digest, of the tags latest and no other; %s:* is all of them", p, p))
		}
		if digests := byDigest(p); digests != "" {
			if err := d.policy.scope.add(digests, d.obj.ID(), scopeDialect); err != nil {
				d.problem(fmt.Sprintf("spec.images[%d]", i), "%v", err)
			}
		}
	}
}

// byDigest is the pattern of all names by digest of the repository whose tags a pattern
// names, and empty for one that names none. A digest bears no tag, so that none can be said
// to be out of the scope: with a name by digest an image would slip past it.
func byDigest(pattern string) string {
	body := strings.TrimRight(pattern, "*")
	folder := body[:strings.LastIndexByte(body, '/')+1]
	name, digest, digested := strings.Cut(body[len(folder):], "@")
	repository, _, tagged := strings.Cut(name, ":")
	switch {
	case digested && tagged && body != pattern: // names leave out a tag beside a digest
		return folder + repository + "@" + digest + "*"
	case digested:
		return ""
	case tagged, body == pattern: // without a tag it is latest
		return folder + repository + "@*"
	}
	return ""
}

// listed reads the authorities of a cluster policy: of its own, or by reference.
func (d *draft) listed(o *origin, field string, list []horkos.Authority) []*Authority {
	var all []*Authority
	seen := make(map[string]bool)
	for i, a := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case a.Name == "" || len(a.Name) > maxName:
			d.problem(at+".name", "want 1 to %d bytes", maxName)
			continue
		case seen[a.Name]:
			d.problem(at+".name", "%.80q is listed again", a.Name)
			continue
		case a.Ref != nil && (a.NoteReference != "" || len(a.PublicKeys) > 0 || a.AcceptExpiredKeys != nil):
			d.problem(at, "write either ref, or keys of its own")
			continue
		case a.Ref != nil && (a.Ref.Namespace == "" || a.Ref.Name == ""):
			d.problem(at+".ref", "want namespace and name")
			continue
		}
		seen[a.Name] = true
		if a.Ref != nil {
			all = append(all, d.authority(o, at+".ref", a.Ref.Namespace, a.Ref.Name, a.Name))
			continue
		}
		all = append(all, d.c.readAuthority(d.obj, at+".", a.Name, authoritySpec{
			note: a.NoteReference, keys: a.PublicKeys, acceptExpired: a.AcceptExpiredKeys}))
	}
	return all
}

// labelsOf reads the labels of the namespaces among an origin's objects.
func labelsOf(objects []crds.Object) map[string]map[string]string {
	all := make(map[string]map[string]string)
	for i := range objects {
		o := &objects[i]
		if o.Kind != crds.KindNamespace || o.APIVersion != "v1" || len(o.Problems) > 0 {
			continue
		}
		var namespace struct {
			Metadata struct {
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
		}
		if json.Unmarshal(o.Raw, &namespace) != nil {
			continue // not known: an enforcing selector matches
		}
		if namespace.Metadata.Labels == nil {
			namespace.Metadata.Labels = map[string]string{}
		}
		all[o.Name] = namespace.Metadata.Labels
	}
	return all
}
