// Command demo shows a node that refuses: a real containerd that requires the gate, a
// registry, one image that is attested and one that is not.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/plugin"
)

func main() {
	if err := harness.Program(demo); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// story is what the demo goes through, and what it tells of it.
type story struct {
	run        *harness.Run
	registry   *harness.Registry
	containerd *harness.Containerd
	node       *harness.Node
	pod        *harness.Pod
	step       int
	wrong      []string // what did not go as told
}

func demo(ctx context.Context, run *harness.Run) error {
	s := &story{run: run}
	if err := s.setUp(ctx); err != nil {
		return err
	}
	if err := s.tell(ctx); err != nil {
		return err
	}
	if len(s.wrong) > 0 {
		return fmt.Errorf("not as it should be: %s", strings.Join(s.wrong, "; "))
	}
	return nil
}

const (
	good = "registry.example.com/shop/cart:1"
	evil = "registry.example.com/shop/miner:1"
)

func (s *story) setUp(ctx context.Context) error {
	var err error
	if s.registry, err = s.run.StartRegistry(harness.RegistryOptions{}); err != nil {
		return err
	}
	say("A containerd of its own, which creates nothing unless the plugin %s agrees; a registry; no Kubernetes.", plugin.FullName)
	s.containerd, err = s.run.StartContainerd(ctx, harness.ContainerdOptions{
		Registry: s.registry,
		NRI:      harness.NRIOptions{RequiredPlugins: []string{plugin.FullName}},
	})
	if err != nil {
		return err
	}
	s.node, err = s.run.NewNode(harness.NodeOptions{Containerd: s.containerd, DefaultAction: "deny"})
	return err
}

func (s *story) tell(ctx context.Context) error {
	attested, err := s.registry.Push(good, harness.Image{Seed: "cart"})
	if err != nil {
		return err
	}
	unattested, err := s.registry.Push(evil, harness.Image{Seed: "miner"})
	if err != nil {
		return err
	}
	if err := s.policies(ctx, attested); err != nil {
		return err
	}
	say("Namespace shop requires that authority release has attested an image. It has attested %s@%s...", attested.Repository, attested.Digest[:14])
	if err := s.node.Start(ctx); err != nil {
		return err
	}
	if s.pod, err = s.containerd.CRI.RunPod(ctx, harness.PodConfig{Namespace: "shop", Name: "demo"}); err != nil {
		return err
	}

	s.create(ctx, "the attested image, by digest", attested.ByDigest(), "", true)
	s.create(ctx, "the other image, by digest", unattested.ByDigest(), "", false)
	s.create(ctx, "the attested image, by tag", attested.ByTag(), "", true)

	if _, err := s.registry.Push(good, harness.Image{Seed: "miner"}); err != nil {
		return err
	}
	s.create(ctx, "the same tag, after somebody moved it to the other image", attested.ByTag(), "Always", false)

	if err := s.node.Kill(); err != nil {
		return err
	}
	s.create(ctx, "the attested image, with the gate killed", attested.ByDigest(), "", false)

	if err := s.node.Start(ctx); err != nil {
		return err
	}
	s.create(ctx, "the attested image, with the gate back", attested.ByDigest(), "", true)
	s.create(ctx, "the other image, with the gate back", unattested.ByDigest(), "", false)

	records, err := s.node.Audit()
	if err != nil {
		return err
	}
	if len(s.wrong) == 0 {
		say("Nothing that nobody attested was created. The audit log of the node holds %d decisions: one a try of a container that it was asked about, and one about the pod's own pause image.", len(records))
	}
	return nil
}

// create tries a container as the kubelet does: what is not known yet is tried again.
func (s *story) create(ctx context.Context, what, image, pull string, want bool) {
	if ctx.Err() != nil {
		return
	}
	s.step++
	fmt.Printf("\n%d. %s\n   %s\n", s.step, what, short(image))
	id, err := "", error(nil)
	for end := time.Now().Add(5 * time.Second); ; {
		id, err = s.containerd.CRI.CreateContainer(ctx, s.pod, harness.ContainerConfig{
			Name: fmt.Sprintf("c%d", s.step), Image: image, PullPolicy: pull})
		if err == nil || !strings.Contains(err.Error(), "It is tried again") || time.Now().After(end) {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	refused := err != nil && strings.Contains(err.Error(), byNRI)
	switch {
	case ctx.Err() != nil:
		fmt.Println("   interrupted")
	case err == nil:
		fmt.Printf("   CREATED  %s\n", id[:12])
	case refused:
		fmt.Printf("   REFUSED  %s\n", wrap(short(reason(err))))
	default:
		fmt.Printf("   FAILED   %s\n", wrap(short(err.Error())))
	}
	if (want && err != nil) || (!want && !refused) {
		s.wrong = append(s.wrong, what)
	}
}

// byNRI is in the error of every create that the gate, or its absence, refused.
const byNRI = "failed to get NRI adjustment"

// reason is the part of the error that the kubelet shows after its own words.
func reason(err error) string {
	text := err.Error()
	if i := strings.Index(text, byNRI); i >= 0 {
		return text[i:]
	}
	return text
}

func (s *story) policies(ctx context.Context, attested harness.Pushed) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	file := filepath.Join(s.run.Dir, "release.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	if err := s.node.WritePolicy("policy.yaml", fmt.Sprintf(policy, strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n        "))); err != nil {
		return err
	}
	attestation, err := exec.CommandContext(ctx, filepath.Join("bin", "horkos"), "attest", attested.ByDigest(), "--pkix-key", file).Output()
	if err != nil {
		return fmt.Errorf("horkos attest: %w", err)
	}
	return s.node.WritePolicy("attestations.yaml", string(attestation))
}

const policy = `apiVersion: kritis.grafeas.io/v1beta1
kind: AttestationAuthority
metadata: {name: release, namespace: shop}
spec:
  publicKeys:
  - keyType: PKIX
    pkixPublicKey:
      publicKeyPem: |
        %s
---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: release, namespace: shop}
spec:
  attestationAuthorityNames: [release]
`

func say(format string, args ...any) {
	fmt.Println("\n" + wrapAt(fmt.Sprintf(format, args...), ""))
}

// short cuts digests, for the reader.
func short(text string) string {
	const mark = "@sha256:"
	var b strings.Builder
	for {
		i := strings.Index(text, mark)
		if i < 0 || len(text) < i+len(mark)+64 {
			return b.String() + text
		}
		b.WriteString(text[:i+len(mark)+7] + "...")
		text = text[i+len(mark)+64:]
	}
}

func wrap(text string) string { return wrapAt(text, "            ") }

// wrapAt breaks a text into lines of at most 100 columns.
func wrapAt(text, indent string) string {
	var b strings.Builder
	column := len(indent)
	for i, word := range strings.Fields(text) {
		if i > 0 {
			if column+1+len(word) > 100 {
				b.WriteString("\n" + indent)
				column = len(indent)
			} else {
				b.WriteByte(' ')
				column++
			}
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
