package main

import (
	"fmt"
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
		return l.notBefore(spec.NotBefore)
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
	warnings := l.notBefore(spec.NotBefore)
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
	for i, p := range spec.Allowlist {
		warnings = append(warnings, hostless(fmt.Sprintf("spec.allowlist[%d]", i), p.NamePattern)...)
	}
	if len(spec.Images) > 0 && enforces(spec.Enforcement) && !l.denyByDefault && !covered(o, spec, all) {
		warnings = append(warnings, crds.Problem{Field: "spec.images", Message: "where no other policy speaks of the images out of this scope, gates whose default action is allow let them run: " +
			"add a policy without images for the same namespaces, or have the gates deny by default and say so here (--default-action deny)"})
	}
	return warnings
}

func enforces(enforcement string) bool {
	return enforcement == "" || enforcement == string(policy.Enforce)
}

// hostless tells of a pattern that has a star and no slash: what looks like a registry is read
// as a name on Docker Hub.
func hostless(field, pattern string) []crds.Problem {
	if !strings.HasSuffix(pattern, "*") || strings.Contains(pattern, "/") {
		return nil
	}
	return []crds.Problem{{Field: field, Message: fmt.Sprintf("%.80q has no slash: it means docker.io/library/%.80s", pattern, pattern)}}
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
