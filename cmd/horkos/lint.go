package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/policy"
)

// lint looks for what can be judged and is hardly what was meant, beyond what compiling tells.
type lint struct {
	now           time.Time
	denyByDefault bool // the gates are said to

	labels     map[string]bool // as labelKeys
	namespaces int
}

// object gives the warnings about one object among all.
func (l lint) object(o *crds.Object, all []crds.Object) []crds.Problem {
	if len(o.Problems) > 0 {
		return nil // first things first
	}
	switch spec := o.Spec.(type) {
	case *kritis.AttestationAuthoritySpec:
		keys := spec.PublicKeys
		if spec.PublicKeyData != "" {
			keys = append(slices.Clip(keys), kritis.PublicKey{ASCIIArmoredPGPPublicKey: spec.PublicKeyData})
		}
		return l.keys("spec", keys, spec.AcceptExpiredKeys, len(spec.PublicKeys))
	case *kritis.GenericAttestationPolicySpec:
		return append(l.notBefore(spec.NotBefore), patterns("spec.admissionAllowlistPatterns", spec.AdmissionAllowlistPatterns)...)
	case *kritis.AdmissionAllowlistSpec:
		return append(doubled("spec.patterns", spec.Patterns), patterns("spec.patterns", spec.Patterns)...)
	case *kritis.ImageSecurityPolicySpec:
		warnings := l.notBefore(spec.NotBefore)
		if enforces(spec.Enforcement) {
			warnings = append(warnings, crds.Problem{Field: "spec", Message: "nothing satisfies it: it requires vulnerability scans, and this version has no source of them"})
		}
		return warnings
	case *horkos.ClusterAttestationPolicySpec:
		return l.clusterPolicy(o, spec, all)
	}
	return nil
}

func (l lint) clusterPolicy(o *crds.Object, spec *horkos.ClusterAttestationPolicySpec, all []crds.Object) []crds.Problem {
	warnings := append(l.notBefore(spec.NotBefore), l.unlabelled(spec.NamespaceSelector)...)
	for _, list := range []struct {
		field       string
		authorities []horkos.Authority
	}{{"authorities", spec.Authorities}, {"emergencyAuthorities", spec.EmergencyAuthorities}} {
		for i, a := range list.authorities {
			warnings = append(warnings, l.keys(fmt.Sprintf("spec.%s[%d]", list.field, i), a.PublicKeys, a.AcceptExpiredKeys, len(a.PublicKeys))...)
		}
	}
	for i, p := range spec.Images {
		warnings = append(warnings, hostless(fmt.Sprintf("spec.images[%d]", i), p)...)
	}
	warnings = append(warnings, patterns("spec.allowlist", spec.Allowlist)...)
	if len(spec.Images) > 0 && enforces(spec.Enforcement) && !l.denyByDefault && !covered(o, spec, all) {
		warnings = append(warnings, crds.Problem{Field: "spec.images", Message: "where no other policy speaks of the images out of this scope, gates whose default action is allow let them run: " +
			"add a policy without images for the same namespaces, or have the gates deny by default and say so here (--default-action deny)"})
	}
	return warnings
}

func enforces(enforcement string) bool {
	return enforcement == "" || enforcement == string(policy.Enforce)
}

// patterns are the warnings about an allowlist.
func patterns(field string, list []kritis.NamePattern) []crds.Problem {
	var warnings []crds.Problem
	for i, p := range list {
		warnings = append(warnings, hostless(fmt.Sprintf("%s[%d]", field, i), p.NamePattern)...)
	}
	return warnings
}

// doubled tells of two stars in an AdmissionAllowlist; the other allowlists cannot read them.
func doubled(field string, list []kritis.NamePattern) []crds.Problem {
	var warnings []crds.Problem
	for i, p := range list {
		if strings.Contains(p.NamePattern, "**") {
			warnings = append(warnings, crds.Problem{Field: fmt.Sprintf("%s[%d]", field, i),
				Message: fmt.Sprintf("%.80q: ** works only in spec.images of a ClusterAttestationPolicy; here it is no more than *, which crosses no slash", p.NamePattern)})
		}
	}
	return warnings
}

// hostless tells of a pattern that has a star and no slash: what looks like a registry is read
// as a name on Docker Hub.
func hostless(field, pattern string) []crds.Problem {
	if !strings.HasSuffix(pattern, "*") || strings.HasSuffix(pattern, "**") || strings.Contains(pattern, "/") {
		return nil
	}
	return []crds.Problem{{Field: field, Message: fmt.Sprintf("%.80q has no slash: it means docker.io/library/%.80s, and no registry: write HOST/*", pattern, pattern)}}
}

// labelKeys are the keys of the labels that some Namespace object has, and how many such
// objects there are.
func labelKeys(all []crds.Object) (have map[string]bool, namespaces int) {
	have = map[string]bool{"kubernetes.io/metadata.name": true}
	for i := range all {
		var namespace struct {
			Metadata struct {
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
		}
		if o := &all[i]; o.Kind != crds.KindNamespace || len(o.Problems) > 0 || json.Unmarshal(o.Raw, &namespace) != nil {
			continue
		}
		namespaces++
		for key := range namespace.Metadata.Labels {
			have[key] = true
		}
	}
	return have, namespaces
}

// unlabelled tells of labels that a selector asks for and no namespace is known to have.
func (l lint) unlabelled(s *horkos.LabelSelector) []crds.Problem {
	if s == nil {
		return nil
	}
	keys := slices.Sorted(maps.Keys(s.MatchLabels))
	for _, c := range s.MatchExpressions {
		if without := c.Operator == "NotIn" || c.Operator == "DoesNotExist"; !without || l.namespaces == 0 {
			keys = append(keys, c.Key)
		}
	}
	var warnings []crds.Problem
	told := make(map[string]bool)
	for _, key := range keys {
		if !l.labels[key] && !told[key] {
			told[key] = true
			warnings = append(warnings, crds.Problem{Field: "spec.namespaceSelector", Message: fmt.Sprintf(
				"no Namespace object here has label %.80s: every namespace that has no such object here counts as selected", key)})
		}
	}
	return warnings
}

// covered tells whether another cluster policy enforces something of all images in the same namespaces.
func covered(o *crds.Object, spec *horkos.ClusterAttestationPolicySpec, all []crds.Object) bool {
	for i := range all {
		other, ok := all[i].Spec.(*horkos.ClusterAttestationPolicySpec)
		if !ok || len(all[i].Problems) > 0 || all[i].Name == o.Name || len(other.Images) > 0 || !enforces(other.Enforcement) {
			continue
		}
		if s := other.NamespaceSelector; s == nil || reflect.DeepEqual(*s, horkos.LabelSelector{}) || reflect.DeepEqual(s, spec.NamespaceSelector) {
			return true
		}
	}
	return false
}

// notBefore tells of a bound that no attestation passes yet.
func (l lint) notBefore(text string) []crds.Problem {
	if t, err := time.Parse(time.RFC3339, text); err != nil || !t.After(l.now) {
		return nil
	}
	return []crds.Problem{{Field: "spec.notBefore", Message: "it lies ahead: nothing satisfies the policy until then"}}
}

// keys tells of keys out of their time or revoked, and of an authority that has no others.
// Those from the listed-th on are of the older shape.
func (l lint) keys(at string, keys []kritis.PublicKey, acceptExpired *bool, listed int) []crds.Problem {
	var warnings []crds.Problem
	useless := 0
	for i, k := range keys {
		field := fmt.Sprintf("%s.publicKeys[%d]", at, i)
		if i >= listed {
			field = at + ".publicKeyData"
		}
		w, use := l.key(k, acceptExpired == nil || *acceptExpired)
		if w.Message != "" {
			w.Field = field + w.Field
			warnings = append(warnings, w)
		}
		if !use {
			useless++
		}
	}
	if len(keys) > 0 && useless == len(keys) {
		field := at + ".publicKeys"
		if listed == 0 {
			field = at + ".publicKeyData"
		}
		warnings = append(warnings, crds.Problem{Field: field, Message: "none of the keys can be used now: nothing satisfies a policy that requires this authority"})
	}
	return warnings
}

// key tells what is wrong with the time of a key, by the field of it, and whether anything
// that it signed can count.
func (l lint) key(k kritis.PublicKey, accept bool) (w crds.Problem, use bool) {
	from, _ := time.Parse(time.RFC3339, k.ValidFrom) // the zero time is no bound, as where it is compiled
	until, _ := time.Parse(time.RFC3339, k.ValidUntil)
	field := ".validUntil"
	if k.ASCIIArmoredPGPPublicKey != "" {
		key, err := attestation.ParsePGPKey("", []byte(k.ASCIIArmoredPGPPublicKey))
		switch {
		case err != nil: // of another sort, or told where it is compiled
		case key.Revoked():
			return crds.Problem{Message: "the key is revoked: nothing that it signed counts"}, false
		case !key.Until().IsZero() && (until.IsZero() || key.Until().Before(until)):
			until, field = key.Until(), ""
		}
	}
	switch {
	case !until.IsZero() && !until.After(from):
		return crds.Problem{Field: field, Message: "the key is at no time valid: validUntil is not after validFrom"}, false
	case from.After(l.now):
		return crds.Problem{Field: ".validFrom", Message: "the key is not to be used yet"}, false
	case until.IsZero() || until.After(l.now):
		return crds.Problem{}, true
	case accept:
		return crds.Problem{Field: field, Message: "the key has expired: only what it signed before counts, by the signer's own word"}, true
	}
	return crds.Problem{Field: field, Message: "the key has expired, and acceptExpiredKeys is false: nothing that it signed counts"}, false
}
