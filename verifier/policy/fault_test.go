package policy

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/horkos/horkos/crds"
)

// TestWhatIsWrongWithAnOriginIsToldOnceForAllItsNamespaces: it was held anew for every one.
func TestWhatIsWrongWithAnOriginIsToldOnceForAllItsNamespaces(t *testing.T) {
	const each = 3_000
	var b strings.Builder
	for n := range each {
		fmt.Fprintf(&b, "---\napiVersion: notation.nirmata.io/v1alpha1\nkind: TrustPolicy\nmetadata: {name: t%d}\n", n)
		fmt.Fprintf(&b, "---\napiVersion: kritis.grafeas.io/v1beta1\nkind: GenericAttestationPolicy\nmetadata: {name: p, namespace: n%d}\nspec: {attestationAuthorityNames: [a]}\n", n)
	}
	set := decoded(t, b.String())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	snap := Compile(set)
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 128 {
		t.Errorf("compiling %d bytes took %d MB", b.Len(), took)
	}
	first, last := snap.Layers("n0")[0].Fault, snap.Layers("n2999")[0].Fault
	if unsafe.StringData(first) != unsafe.StringData(last) {
		t.Error("each namespace holds it anew")
	}
	if !strings.Contains(first, "TrustPolicy t0") || !strings.Contains(first, fmt.Sprintf("; and %d more", each-1-strings.Count(first, "; TrustPolicy"))) {
		t.Errorf("fault %s", first)
	}
}

func TestAFaultIsClipped(t *testing.T) {
	objects := decoded(t, gap("p", "attestationAuthorityNames: [a]")).Objects
	long := strings.Repeat("é", maxFault)
	snap := Compile(crds.Set{Origin: crds.Folder, Objects: objects, Faults: []crds.Fault{
		{Source: "a.yaml", Message: long},
		{Source: "b.yaml", Message: "lost", Namespaces: []string{"shop"}},
		{Source: "c.yaml", Message: long, Namespaces: []string{"shop"}},
		{Source: "d.yaml", Message: "lost", Namespaces: []string{"shop"}},
	}})
	var told []string
	for _, l := range snap.Layers("shop") {
		if l.Fault == "" {
			continue
		}
		if len(l.Fault) > maxFault+40 || strings.ToValidUTF8(l.Fault, "") != l.Fault {
			t.Errorf("fault of %d bytes", len(l.Fault))
		}
		told = append(told, l.Fault)
	}
	if len(told) != 2 || !strings.HasPrefix(told[0], "a.yaml: é") || told[1] != "b.yaml: lost; and 2 more" {
		t.Errorf("told %.60q", told)
	}
	if elsewhere := snap.Layers("elsewhere"); len(elsewhere) != 1 || elsewhere[0].Fault != told[0] {
		t.Errorf("elsewhere: %+v", elsewhere)
	}
}

func TestMorePoliciesThanAreJudgedAreReported(t *testing.T) {
	var manifests []string
	for n := range MaxPolicies + 1 {
		manifests = append(manifests, gap(fmt.Sprint("p", n), "attestationAuthorityNames: [a]"),
			object("ImageSecurityPolicy", "shop", fmt.Sprint("s", n), ""))
	}
	manifests = append(manifests, authority("a", keys(t, 1)))
	snap := compiled(t, manifests...)
	var told []string
	for _, f := range snap.Findings() {
		if strings.Contains(f.Message, "are judged") && !f.Ignored && !f.Warning {
			told = append(told, f.Message)
		}
	}
	want := []string{
		"namespace shop has 257 objects of kind GenericAttestationPolicy, at most 256 are judged: put what they require into fewer",
		"namespace shop has 257 objects of kind ImageSecurityPolicy, at most 256 are judged: put what they require into fewer",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q", told)
	}
	if layers := snap.Layers("shop"); len(layers) != 1 || layers[0].Fault != strings.Join(want, "; ") {
		t.Errorf("layers %+v", layers)
	}
	if layers := compiled(t, manifests[2:]...).Layers("shop"); len(layers) != 2 || len(layers[0].Policies) != MaxPolicies {
		t.Errorf("at the limit: %d layers", len(layers))
	}
}
