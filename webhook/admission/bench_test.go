package admission

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/verifier/evidence"
)

// discard is a ResponseWriter that keeps the last answer only.
type discard struct {
	header http.Header
	code   int
	body   []byte
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(code int)        { d.code = code }
func (d *discard) Write(b []byte) (int, error) { d.body = append(d.body[:0], b...); return len(b), nil }

// nothing is a Recorder.
type nothing struct{}

func (nothing) Append(*audit.Record) error { return nil }

// benchWorld is 1,000 policies, of which two GAPs and ten cluster policies, two of them in
// scope, speak of namespace shop, and 1,000 attested images.
func benchWorld(b *testing.B) *world {
	key := authority(b, "release", signer(1))
	manifests := []string{key}
	for n := range 10 {
		scope := "registry.example.com/shop/**"
		if n >= 2 {
			scope = fmt.Sprintf("registry.example.com/team-%d/**", n)
		}
		manifests = append(manifests, fmt.Sprintf("apiVersion: horkos.dev/v1alpha1\nkind: ClusterAttestationPolicy\nmetadata: {name: c%d}\n"+
			"spec: {images: [%q], authorities: [{name: release, ref: {namespace: shop, name: release}}]}\n", n, scope))
	}
	for n := range 990 {
		policy := gap(fmt.Sprint("p", n), "attestationAuthorityNames: [release]")
		if n >= 2 {
			ns := fmt.Sprint("namespace: n", n%100)
			policy = strings.Replace(policy, "namespace: shop", ns, 1)
			if n < 102 {
				manifests = append(manifests, strings.Replace(key, "namespace: shop", ns, 1))
			}
		}
		manifests = append(manifests, policy)
	}
	records := make(evidence.Records)
	for n := range 1_000 {
		records[cart(n)] = []evidence.Attestation{attest(b, signer(1), cart(n))}
	}
	return newWorld(b, records, manifests...)
}

// benchReview is a creation of a kind as the API server writes it: with the fields that a
// cluster fills in, some 5 KB.
func benchReview(b *testing.B, kind string, images ...string) []byte {
	pod := podOf(images...)
	for _, c := range pod["containers"].([]m) {
		var env []m
		for i := range 12 {
			env = append(env, m{"name": fmt.Sprint("SETTING_", i), "value": strings.Repeat("v", 24)})
		}
		c["env"] = env
		c["resources"] = m{"limits": m{"cpu": "1", "memory": "1Gi"}, "requests": m{"cpu": "100m", "memory": "128Mi"}}
		c["volumeMounts"] = []m{{"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}}
		c["livenessProbe"] = m{"httpGet": m{"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10}
		c["terminationMessagePath"] = "/dev/termination-log"
	}
	pod["volumes"] = []m{{"name": "kube-api-access-x", "projected": m{"sources": []m{{"serviceAccountToken": m{"expirationSeconds": 3607, "path": "token"}}}}}}
	pod["tolerations"] = []m{{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}}
	o := anObject(kind, pod)
	var fields []m
	for i := range 20 {
		fields = append(fields, m{fmt.Sprintf(`f:field-%d`, i): m{".": m{}, "f:name": m{}}})
	}
	o["metadata"].(m)["managedFields"] = []m{{"manager": "kubectl", "operation": "Update", "fieldsV1": fields}}
	return aReview("CREATE", kind, nil).with(review{"object": o}).json(b)
}

// BenchmarkReview answers reviews on one core, with every signature verified before.
func BenchmarkReview(b *testing.B) {
	w := benchWorld(b)
	for _, bm := range []struct {
		name    string
		allowed bool
		body    func(n int) []byte
	}{
		{"pod/allowed", true, func(n int) []byte { return benchReview(b, "Pod", cart(n).String(), cart(n+1).String()) }},
		{"pod/denied", false, func(n int) []byte { return benchReview(b, "Pod", cart(n).String(), cart(5_000+n).String()) }},
		{"pod/tag", false, func(n int) []byte { return benchReview(b, "Pod", fmt.Sprintf("alpine:3.%d", n)) }},
		{"deployment/allowed", true, func(n int) []byte { return benchReview(b, "Deployment", cart(n).String()) }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			d := newDoor(b, w)
			d.Shell.Records, d.Events = nothing{}, nil
			d.deciding.Records = nothing{}
			var bodies [][]byte
			for n := range 500 {
				bodies = append(bodies, bm.body(n))
			}
			out := &discard{header: make(http.Header)}
			want := fmt.Sprintf(`"allowed":%v`, bm.allowed)
			ask := func(n int) {
				r := httptest.NewRequest(http.MethodPost, "/validate?timeout=10s", strings.NewReader(string(bodies[n%len(bodies)])))
				r.Header.Set("Content-Type", "application/json")
				d.ServeHTTP(out, r)
				if !strings.Contains(string(out.body), want) {
					b.Fatal(string(out.body))
				}
			}
			for n := range bodies {
				ask(n)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(bodies[0])))
			n := 0
			for b.Loop() {
				ask(n)
				n++
				if n%1000 == 0 {
					d.log.Reset()
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reviews/s")
		})
	}
}
