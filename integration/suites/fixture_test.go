// Package suites proves on real components what the README claims.
package suites

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/plugin"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// shop is the namespace that the fixture's policy speaks of.
const shop = "shop"

// fixture is a node under the gate: a containerd that requires it, a registry, and a
// policy that namespace shop wants images attested by authority release.
type fixture struct {
	*testing.T
	ctx        context.Context
	run        *harness.Run
	registry   *harness.Registry
	containerd *harness.Containerd
	node       *harness.Node
	release    key
	serial     *atomic.Int64
}

// key is a key pair of an authority.
type key struct {
	private crypto.Signer
	pem     string
}

func newKey(t testing.TB) key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key{private, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
}

// setup changes what newFixture starts.
type setup struct {
	containerd harness.ContainerdOptions
	node       harness.NodeOptions
}

// newFixture starts all of it and waits until the gate is ready. Change, when it is
// not nil, edits the options first.
func newFixture(t *testing.T, change func(*setup)) *fixture {
	t.Helper()
	f := prepare(t, change)
	f.start()
	return f
}

// prepare starts everything but the gate.
func prepare(t *testing.T, change func(*setup)) *fixture {
	t.Helper()
	f := &fixture{T: t, run: harness.New(t), release: newKey(t), serial: new(atomic.Int64)}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	f.ctx = ctx
	var err error
	if f.registry, err = f.run.StartRegistry(harness.RegistryOptions{}); err != nil {
		t.Fatal(err)
	}
	o := setup{
		containerd: harness.ContainerdOptions{NRI: harness.NRIOptions{RequiredPlugins: []string{plugin.FullName}}},
		node:       harness.NodeOptions{DefaultAction: "deny"},
	}
	if change != nil {
		change(&o)
	}
	o.containerd.Registry = f.registry
	if f.containerd, err = f.run.StartContainerd(f.ctx, o.containerd); err != nil {
		t.Fatal(err)
	}
	o.node.Containerd = f.containerd
	if f.node, err = f.run.NewNode(o.node); err != nil {
		t.Fatal(err)
	}
	f.policy("policy.yaml", authority(shop, "release", f.release)+policy(shop, "release", "release"))
	return f
}

// sub runs a subtest on the fixture.
func (f *fixture) sub(name string, test func(t *testing.T, f *fixture)) {
	f.Run(name, func(t *testing.T) {
		g := *f
		g.T = t
		test(t, &g)
	})
}

func (f *fixture) start() {
	f.Helper()
	if err := f.node.Start(f.ctx); err != nil {
		f.Fatal(err)
	}
}

// policy puts a file in the policy folder.
func (f *fixture) policy(name, content string) {
	f.Helper()
	if err := f.node.WritePolicy(name, content); err != nil {
		f.Fatal(err)
	}
}

func authority(namespace, name string, k key) string {
	return fmt.Sprintf(`---
apiVersion: kritis.grafeas.io/v1beta1
kind: AttestationAuthority
metadata: {name: %s, namespace: %s}
spec: {publicKeys: [{keyType: PKIX, pkixPublicKey: {publicKeyPem: %q}}]}
`, name, namespace, k.pem)
}

func policy(namespace, name string, authorities ...string) string {
	return fmt.Sprintf(`---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: %s, namespace: %s}
spec: {attestationAuthorityNames: [%s]}
`, name, namespace, strings.Join(authorities, ", "))
}

func allowlist(name, pattern string) string {
	return fmt.Sprintf(`---
apiVersion: kritis.grafeas.io/v1beta1
kind: AdmissionAllowlist
metadata: {name: %s}
spec: {patterns: [{namePattern: %q}]}
`, name, pattern)
}

func revocation(name string, digests ...string) string {
	return fmt.Sprintf(`---
apiVersion: horkos.dev/v1alpha1
kind: ImageRevocation
metadata: {name: %s}
spec: {digests: ["%s"], reason: CVE-2026-0001}
`, name, strings.Join(digests, `", "`))
}

// attested is an ImageAttestation by a key about repository@digest.
func attested(t testing.TB, k key, repository, digest string) string {
	t.Helper()
	id := image.Identity{Repository: repository, Digest: image.Digest(digest)}
	payload, err := attestation.NewPayload(id, time.Now(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	signature, public, err := attestation.Sign(k.private, "", payload)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`---
apiVersion: horkos.dev/v1alpha1
kind: ImageAttestation
metadata: {name: %s}
spec:
  attestations:
  - resourceUri: %s
    attestation: {serializedPayload: %s, signatures: [{signature: %s, publicKeyId: "%s"}]}
`, strings.Replace(digest, ":", "-", 1), id,
		base64.StdEncoding.EncodeToString(payload), base64.StdEncoding.EncodeToString(signature), public.ID)
}

// attest files an attestation of the image's digest by authority release.
func (f *fixture) attest(p harness.Pushed) {
	f.Helper()
	f.policy("attested-"+p.Digest[7:19]+fmt.Sprint(f.serial.Add(1))+".yaml", attested(f, f.release, p.Repository, p.Digest))
}

func (f *fixture) push(ref string, i harness.Image) harness.Pushed {
	f.Helper()
	p, err := f.registry.Push(ref, i)
	if err != nil {
		f.Fatal(err)
	}
	return p
}

// pod runs a sandbox in a namespace.
func (f *fixture) pod(namespace string) *harness.Pod {
	f.Helper()
	p, err := f.containerd.CRI.RunPod(f.ctx, harness.PodConfig{Namespace: namespace, Name: fmt.Sprintf("pod-%d", f.serial.Add(1))})
	if err != nil {
		f.Fatal(err)
	}
	return p
}

// create makes a container once and gives the error of the runtime.
func (f *fixture) create(pod *harness.Pod, c harness.ContainerConfig) (string, error) {
	if c.Name == "" {
		c.Name = fmt.Sprintf("c-%d", f.serial.Add(1))
	}
	return f.containerd.CRI.CreateContainer(f.ctx, pod, c)
}

// again tells errors that the kubelet's next try may clear.
func again(err error) bool { return err != nil && strings.Contains(err.Error(), "It is tried again") }

// patience is how long a fixture tries what a kubelet would try again, or waits for a
// policy to be in force.
// It is longer than the policy folder is looked at without any event.
const patience = 20 * time.Second

// created creates a container, trying as the kubelet would, and fails the test if it is refused.
func (f *fixture) created(pod *harness.Pod, c harness.ContainerConfig) string {
	f.Helper()
	var id string
	f.eventually("the container of "+c.Image+" is created", func() error {
		var err error
		id, err = f.create(pod, c)
		return err
	})
	return id
}

// refused creates a container and fails the test if it is created, or refused for
// anything but the text. What may be tried again is.
func (f *fixture) refused(pod *harness.Pod, c harness.ContainerConfig, text string) {
	f.Helper()
	f.eventually(c.Image+" is refused with "+text, func() error {
		id, err := f.create(pod, c)
		if err == nil {
			f.Fatalf("%s was created (%s), it must be refused with %q", c.Image, id, text)
		}
		if !strings.Contains(err.Error(), text) {
			return fmt.Errorf("refused, with another text than %q: %w", text, err)
		}
		return nil
	})
}

// eventually tries until there is no error, for the fixture's patience.
func (f *fixture) eventually(what string, try func() error) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	if err := harness.Poll(ctx, what, func(context.Context) error { return try() }); err != nil {
		f.Fatal(err)
	}
}

// ready tells whether the gate says it is ready, and else what it says.
func (f *fixture) ready() (bool, string) {
	body, err := f.node.Get(f.ctx, "/readyz")
	return err == nil, body
}

// inForce puts a file in the policy folder and waits until the gate decides by it.
func (f *fixture) inForce(name, content string) {
	f.Helper()
	before := f.revision()
	f.policy(name, content)
	f.within("the policy is in force", func() bool { return f.revision() != before })
}

// revision is that of the policies the gate decides by.
func (f *fixture) revision() string {
	f.Helper()
	text, err := f.node.Get(f.ctx, "/metrics")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, `horkos_policy_revision_info{revision="`); ok {
			return rest[:12]
		}
	}
	f.Fatal("no revision among the metrics")
	return ""
}

// errNotYet is for conditions that are waited for.
var errNotYet = errors.New("not yet")

// within waits for a condition and tells how long that took.
func (f *fixture) within(what string, is func() bool) time.Duration {
	f.Helper()
	started := time.Now()
	f.eventually(what, func() error {
		if !is() {
			return errNotYet
		}
		return nil
	})
	return time.Since(started)
}
