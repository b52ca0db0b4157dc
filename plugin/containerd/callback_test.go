package containerd_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/plugin"
	"github.com/horkos/horkos/plugin/containerd"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
)

// The callback is measured with as much as a node is to bear.
const (
	manyImages   = 10_000
	manyPolicies = 1_000
	manyCalls    = 10_000
)

// callback is all that is asked while a container waits, in one process: index, decision,
// gate and audit log. Only containerd is a fake.
type callback struct {
	*containerd.Stocked
	*plugin.Plugin
	calls int
}

// newCallback has n images on the node, all attested and verified before.
func newCallback(t *testing.T, n int) *callback {
	t.Helper()
	stock := containerd.NewStocked(t, n)
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	snap := policy.Compile(policies(t, private))
	memory := evidence.NewMemory()
	records := make(evidence.Records, n)
	for i := range n {
		records[stock.Identity(i)] = []evidence.Attestation{attest(t, private, stock.Identity(i))}
	}
	memory.Replace("folder", records)
	for id := range records {
		must(t, verifier.Settle(t.Context(), snap, memory, "shop", evidence.Question{Source: "folder", Identity: id}))
	}
	floor, err := gate.ParseFloor([]byte(stock.Pause))
	must(t, err)
	log := slog.New(slog.DiscardHandler)
	recorder, err := audit.Open(audit.Options{Path: filepath.Join(t.TempDir(), "audit.log"), Node: "node"})
	must(t, err)
	t.Cleanup(func() { recorder.Close() })
	decider := verifier.Decider{Sources: []evidence.Question{{Source: "folder"}}}
	return &callback{Stocked: stock, Plugin: plugin.New(plugin.Options{
		Binder: stock, Wanter: nobody{},
		Decide: func(req *verifier.Request) verifier.Decision { return decider.Decide(req, snap, memory) },
		Shell: &gate.Shell{Gate: plugin.GateName, Node: "node", Mode: gate.Enforce, Floor: func() *gate.Floor { return floor },
			Records: recorder, Metrics: gate.NewMetrics(prometheus.NewRegistry(), "test"), Log: log, Now: time.Now},
		MaxSpecBytes: plugin.DefaultMaxSpecBytes, MaxSyncBytes: plugin.DefaultMaxSyncBytes,
		Changed: func(plugin.State) {}, Now: time.Now, Log: log,
	})}
}

type nobody struct{}

func (nobody) Want(string, []evidence.Question) {}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// policies are as many as a node is to bear: two of namespace shop, ten of the cluster, and others' own.
func policies(t *testing.T, private ed25519.PrivateKey) crds.Set {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	must(t, err)
	keys := fmt.Sprintf(`publicKeys: [{keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}]`, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	var b strings.Builder
	object := func(version, kind, meta, spec string) {
		fmt.Fprintf(&b, "---\napiVersion: %s\nkind: %s\nmetadata: {%s}\nspec: {%s}\n", version, kind, meta, spec)
	}
	const kritis = "kritis.grafeas.io/v1beta1"
	for n := range 10 {
		scope := "registry.example.com/shop/**"
		if n >= 2 {
			scope = fmt.Sprintf("registry.example.com/team-%d/**", n)
		}
		object("horkos.dev/v1alpha1", "ClusterAttestationPolicy", fmt.Sprintf("name: c%d", n),
			fmt.Sprintf("images: [%q], authorities: [{name: release, %s}]", scope, keys))
	}
	for n := range manyPolicies - 10 {
		namespace := fmt.Sprint("n", n/2)
		if n < 2 {
			namespace = "shop"
		}
		if n%2 == 0 {
			object(kritis, "AttestationAuthority", "name: release, namespace: "+namespace, keys)
		}
		object(kritis, "GenericAttestationPolicy", fmt.Sprintf("name: p%d, namespace: %s", n, namespace), "attestationAuthorityNames: [release]")
	}
	objects, err := crds.Decode([]byte(b.String()), "policies.yaml")
	must(t, err)
	return crds.Set{Origin: crds.Folder, Objects: objects}
}

func attest(t *testing.T, private ed25519.PrivateKey, id image.Identity) evidence.Attestation {
	t.Helper()
	payload, err := attestation.NewPayload(id, time.Now(), time.Time{})
	must(t, err)
	signature, key, err := attestation.Sign(private, "", payload)
	must(t, err)
	return evidence.Attestation{Origin: "test", Envelopes: []attestation.Envelope{attestation.NewEnvelope(attestation.PKIX, key.ID, payload, signature)}}
}

// request is what containerd 2.4 asks about a container of image i.
func (c *callback) request(i int, byTag bool) *api.ValidateContainerAdjustmentRequest {
	c.calls++
	id := fmt.Sprint("container-", c.calls)
	digest, config := c.Container(id, i)
	name := c.Identity(i).String()
	if byTag {
		name = c.Identity(i).Repository + ":1"
	}
	return &api.ValidateContainerAdjustmentRequest{
		Pod: &api.PodSandbox{Id: c.Sandbox, Name: "web", Namespace: "shop", Uid: "1"},
		Container: &api.Container{
			Id: id, PodSandboxId: c.Sandbox, Name: "app", Image: &api.Image{Digest: string(digest), ConfigDigest: string(config)},
			Annotations: map[string]string{"io.kubernetes.cri.image-name": name},
			Mounts:      []*api.Mount{{Source: "proc"}, {Source: "/var/lib/kubelet/pods/1/etc-hosts"}},
		},
	}
}

// ask asks, and takes the container off the node again.
func (c *callback) ask(t *testing.T, r *api.ValidateContainerAdjustmentRequest) time.Duration {
	t.Helper()
	began := time.Now()
	err := c.ValidateContainerAdjustment(context.Background(), r)
	took := time.Since(began)
	must(t, err)
	must(t, c.RemoveContainer(context.Background(), r.Pod, r.Container))
	return took
}

func TestACreateCostsOneCallToContainerdByTagAsByDigest(t *testing.T) {
	c := newCallback(t, 10)
	c.ask(t, c.request(0, true)) // judges the sandbox, and learns the default snapshotter
	for _, byTag := range []bool{true, false} {
		c.Calls()
		const creates = 50
		for i := range creates {
			c.ask(t, c.request(i%10, byTag))
		}
		if calls := c.Calls(); len(calls) != 1 || calls["Snapshots/Stat"] != creates {
			t.Errorf("by tag %v, %d creates made the calls %v, want %d of Snapshots/Stat alone", byTag, creates, calls, creates)
		}
	}
}

// TestTheCallbackIsQuickInProcess holds the callback without the snapshot's stat to its limit.
// A round that others on the machine disturbed is made up for by another: the best counts.
func TestTheCallbackIsQuickInProcess(t *testing.T) {
	limit := 300 * time.Microsecond
	images := manyImages
	if raceDetector {
		limit, images = 20*limit, manyImages/10 // all is slower with it; make bench holds to the limit
	}
	c := newCallback(t, images)
	c.LeaveOutStat()
	c.ask(t, c.request(0, true))
	best := time.Duration(1 << 62)
	for range 5 {
		requests := make([]*api.ValidateContainerAdjustmentRequest, manyCalls)
		for n := range requests {
			requests[n] = c.request(n%images, n%2 == 0)
		}
		took := make([]time.Duration, len(requests))
		for n, r := range requests {
			took[n] = c.ask(t, r)
		}
		slices.Sort(took)
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		t.Logf("%d calls, %d policies, %d images: p50 %s, p99 %s, slowest %s", len(took), manyPolicies, images, p50, p99, took[len(took)-1])
		if best = min(best, p99); best <= limit {
			return
		}
	}
	t.Errorf("p99 is %s, at most %s is allowed", best, limit)
}
