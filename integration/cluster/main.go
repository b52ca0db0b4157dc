// Command cluster runs a cluster of one node with Horkos in it, of the real components, to
// try it: it says what to type, stays until it is interrupted, and leaves nothing.
package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/plugin"
)

func main() {
	if err := harness.ClusterProgram(show); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// shown is what the program has at hand.
type shown struct {
	run      *harness.Run
	began    time.Time
	registry *harness.Registry
	cluster  *harness.Cluster
	cart     harness.Pushed // attested
	alpine   harness.Pushed // attested, too
	miner    harness.Pushed // not
	key      string         // path of the private key of authority release
}

func show(ctx context.Context, run *harness.Run) error {
	s := &shown{run: run, began: time.Now()}
	if err := s.start(ctx); err != nil {
		return unlessEnded(ctx, err)
	}
	if err := s.apply(ctx); err != nil {
		return unlessEnded(ctx, err)
	}
	s.tell()
	return s.stay(ctx)
}

// unlessEnded is the error, unless somebody ended the program, who need not be told.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

const (
	cart   = "registry.example.com/shop/cart:1"
	miner  = "registry.example.com/shop/miner:1"
	alpine = "registry.example.com/acs/alpine:3.11"

	// image is what the manifests of daemonset/ name until somebody says where it is.
	image = "registry.example.com/horkos:VERSION"
)

// start starts everything.
func (s *shown) start(ctx context.Context) error {
	var err error
	if s.registry, err = s.run.StartRegistry(harness.RegistryOptions{}); err != nil {
		return err
	}
	for ref, pushed := range map[string]*harness.Pushed{cart: &s.cart, miner: &s.miner, alpine: &s.alpine} {
		if *pushed, err = s.registry.Push(ref, harness.Image{Seed: ref}); err != nil {
			return err
		}
	}
	if _, err := s.registry.PushLayout(image, s.run.Program("image")); err != nil {
		return fmt.Errorf("%w (make image builds it)", err)
	}
	s.say("starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler and containerd (under 10 s)")
	s.cluster, err = s.run.StartCluster(ctx, harness.ClusterOptions{
		Registry:   s.registry,
		Apply:      s.install,
		Containerd: harness.ContainerdOptions{NRI: harness.NRIOptions{RequiredPlugins: []string{plugin.FullName}}},
		Node:       &harness.NodeOptions{DefaultAction: "allow", LogLevel: "info"},
		Prepare: func(*harness.Node) error {
			s.say("starting horkos-node, which containerd creates nothing without, and the kubelet (under 10 s)")
			return nil
		},
		Follow: true,
	})
	return err
}

// install applies what users get.
func (s *shown) install(ctx context.Context, control *harness.ControlPlane) error {
	s.say("kubectl apply --server-side -k daemonset/, and -k daemonset/webhook")
	for _, what := range []string{"daemonset/", "daemonset/webhook"} {
		if _, _, err := control.Kubectl(ctx, "apply", "--server-side", "-k", what); err != nil {
			return err
		}
	}
	// This node has the gate of the host, which enforces; that of the DaemonSet only audits,
	// and would keep its state in folders of this machine.
	_, _, err := control.Kubectl(ctx, "-n", "horkos-system", "patch", "daemonset", "horkos-node",
		"-p", `{"spec":{"template":{"spec":{"nodeSelector":{"horkos.dev/gate":"daemonset"}}}}}`)
	return err
}

// apply makes the namespace, with its policy and an attestation of one of the images.
func (s *shown) apply(ctx context.Context) error {
	s.say("making namespace shop, whose policy wants images attested by authority release, and attesting %s", cart)
	public, err := s.makeKey()
	if err != nil {
		return err
	}
	manifest := fmt.Sprintf(policy, strings.ReplaceAll(public, "\n", "\n        "))
	for _, attested := range []harness.Pushed{s.cart, s.alpine} {
		attestation, err := exec.CommandContext(ctx, s.run.Program("horkos"), "attest", attested.ByDigest(), "--pkix-key", s.key).Output()
		if err != nil {
			return fmt.Errorf("horkos attest: %w", err)
		}
		manifest += "---\n" + string(attestation)
	}
	control := s.cluster.ControlPlane
	if _, _, err := control.KubectlAs(ctx, control.AdminKubeconfig, manifest, "apply", "-f", "-"); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"revocation.yaml":                     fmt.Sprintf(revocation, s.cart.Digest),
		"AttestationAuthority.yaml":           fmt.Sprintf(kritisAuthority, base64.StdEncoding.EncodeToString([]byte(public))),
		"GenericAttestationPolicy.yaml":       kritisPolicy,
		"kritis-admission-allowlist-acs.yaml": kritisAllowlist,
	} {
		if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// Pods cannot be made before.
	if _, _, err := control.Kubectl(ctx, "-n", "shop", "wait", "--for=create", "serviceaccount/default", "--timeout=30s"); err != nil {
		return err
	}
	s.say("waiting for the node to say that it is ready, which it may every 10 s, for the controller and the webhook (under 20 s)")
	for _, what := range [][]string{
		{"nodegate/" + harness.NodeName, "--for=jsonpath={.status.ready}=true"},
		{"deployment/horkos-controller", "deployment/horkos-webhook", "-n", "horkos-system", "--for=condition=Available"},
	} {
		if _, _, err := control.Kubectl(ctx, append(append([]string{"wait"}, what...), "--timeout=60s")...); err != nil {
			return err
		}
	}
	return nil
}

// makeKey makes the key of authority release, and returns the public one.
func (s *shown) makeKey() (string, error) {
	private, public, err := newKey()
	if err != nil {
		return "", err
	}
	s.key = s.file("release.pem")
	return public, os.WriteFile(s.key, private, 0o600)
}

func (s *shown) file(name string) string { return filepath.Join(s.run.Dir, name) }

// tell prints what to try. Lines that begin with "  $ " can be typed as they are; of those
// that say so at their end, kubectl ends with an error that says why.
func (s *shown) tell() {
	control := s.cluster.ControlPlane
	s.say("it runs")
	fmt.Printf("\nIn another terminal:\n\n  $ export KUBECONFIG=%s %s PATH=%s:%s:$PATH\n", control.AdminKubeconfig, control.KubectlCache(),
		filepath.Dir(s.run.Program("horkos")), filepath.Dir(s.run.Program("tools/kubectl")))
	const refused = "    # is refused"
	failed := func(pod string) string {
		return "kubectl -n shop wait pod/" + pod + " --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=CreateContainerError --timeout=60s"
	}
	configuration := filepath.Join(s.run.Program(".."), "daemonset/webhook/configuration.yaml")
	for _, step := range []struct {
		title    string
		commands []string
	}{
		{"What the gate of each node says of itself:", []string{
			"kubectl get nodegates"}},
		{"The attested image runs:", []string{
			"kubectl -n shop run cart --image=" + s.cart.ByDigest(),
			"kubectl -n shop wait pod/cart --for=condition=Ready --timeout=60s"}},
		{"The other one is refused, by the webhook and at once:", []string{
			"kubectl -n shop run miner --image=" + s.miner.ByDigest() + refused}},
		{"The objects of Kritis, in the shape of Alibaba Cloud's documents:", []string{
			"kubectl apply -f " + s.file("AttestationAuthority.yaml") + " -f " + s.file("GenericAttestationPolicy.yaml"),
			"kubectl wait genericattestationpolicy/demo-gap --for=condition=Ready --timeout=60s",
			"kubectl create deployment test-denied --image=alpine:3.11" + refused,
			"kubectl create deployment test-allow --image=" + s.alpine.ByDigest(),
			"kubectl rollout status deployment/test-allow --timeout=60s",
			"kubectl apply -f " + s.file("kritis-admission-allowlist-acs.yaml"),
			"kubectl get events -n kube-system --field-selector=reason=FailedKritisAdmission"}},
		{"Somebody deletes the webhook's configuration: the node refuses, and the pod says why:", []string{
			"kubectl delete validatingwebhookconfiguration horkos",
			"kubectl -n shop run miner --image=" + s.miner.ByDigest(),
			failed("miner"),
			"kubectl -n shop describe pod miner | grep -e Reason -e attested"}},
		{"Revoked, what ran is not created again:", []string{
			"kubectl apply -f " + s.file("revocation.yaml"),
			"kubectl -n shop delete pod cart --now",
			"kubectl -n shop run cart --image=" + s.cart.ByDigest(),
			failed("cart"),
			"kubectl -n shop describe pod cart | grep -e Reason -e revoked"}},
		{"Attest it yourself, and it runs (when the kubelet tries again):", []string{
			"horkos attest " + s.miner.ByDigest() + " --pkix-key " + s.key + " | kubectl apply -f -",
			"kubectl -n shop wait pod/miner --for=condition=Ready --timeout=180s"}},
		{"The webhook's configuration again:", []string{
			"kubectl apply --server-side -f " + configuration}},
		{"Nodes, policies, and what is not ready:", []string{
			"horkos status"}},
	} {
		fmt.Printf("\n%s\n\n", step.title)
		for _, command := range step.commands {
			fmt.Println("  $ " + command)
		}
	}
	fmt.Printf("\nThe audit log of the node is %s, and logs are in %s.\nCtrl-C ends it all and leaves nothing.\n", s.cluster.Node.AuditFile, s.run.Dir)
}

// stay waits until somebody ends the program, and tells what ended by itself.
func (s *shown) stay(ctx context.Context) error {
	var waiting sync.WaitGroup
	control := s.cluster.ControlPlane
	for name, service := range map[string]*harness.Service{
		"etcd": control.Etcd, "kube-apiserver": control.APIServer, "kube-controller-manager": control.ControllerManager,
		"kube-scheduler": control.Scheduler, "containerd": s.cluster.Containerd.Service, "horkos-node": s.cluster.Node.Service,
		"the kubelet": s.cluster.Kubelet.Service,
	} {
		waiting.Go(func() {
			select {
			case <-service.Exited():
				s.say("%s ended; its log is %s", name, service.LogFile())
			case <-ctx.Done():
			}
		})
	}
	waiting.Wait()
	<-ctx.Done()
	fmt.Println()
	s.say("ending everything")
	return nil
}

// say prints a line with the time since the start.
func (s *shown) say(format string, args ...any) {
	fmt.Printf("%4.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

const policy = `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: kritis.grafeas.io/v1beta1
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

const revocation = `apiVersion: horkos.dev/v1alpha1
kind: ImageRevocation
metadata: {name: cart}
spec:
  digests: [%q]
  reason: to see what happens
`

const kritisAuthority = `apiVersion: kritis.grafeas.io/v1beta1
kind: AttestationAuthority
metadata: {name: demo-aa, namespace: default}
spec:
  noteReference: namespaces/demo-aa
  publicKeyData: %s
`

const kritisPolicy = `apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: demo-gap, namespace: default}
spec: {attestationAuthorityNames: [demo-aa]}
`

const kritisAllowlist = `apiVersion: kritis.grafeas.io/v1beta1
kind: AdmissionAllowlist
metadata: {name: allow-acs-images}
spec: {patterns: [{namePattern: "registry*.*.aliyuncs.com/acs/*"}]}
`
