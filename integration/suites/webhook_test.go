package suites

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
)

// reviewed is a cluster, without nodes, whose API server asks the webhook.
type reviewed struct {
	*followed
	address, health string
	cmd             *exec.Cmd
	log             string
}

// review starts the control plane and the webhook, with the rights and the configuration
// that users apply; the API server calls it by its address, as there is no network of Services.
func review(t *testing.T) *reviewed {
	t.Helper()
	harness.RequireCluster(t)
	f := &reviewed{followed: &followed{fixture: &fixture{T: t, run: harness.New(t), release: newKey(t)}}}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	f.ctx = ctx
	var err error
	if f.plane, err = f.run.StartControlPlane(ctx, harness.ControlPlaneOptions{}); err != nil {
		t.Fatal(err)
	}
	f.install()
	f.kubectl("", "apply", "-f", "daemonset/webhook/rbac.yaml")
	f.address, f.health = unused(t), unused(t)
	configuration, err := os.ReadFile("../../daemonset/webhook/configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	service := "    service:\n      name: horkos-webhook\n      namespace: horkos-system\n      path: /\n"
	if n := strings.Count(string(configuration), service); n != 2 {
		t.Fatalf("the configuration names the service %d times", n)
	}
	f.kubectl(strings.ReplaceAll(string(configuration), service, "    url: https://"+f.address+"/\n"), "apply", "-f", "-")
	f.begin()
	return f
}

func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// begin starts the webhook and waits until it is ready and the API server believes it.
func (f *reviewed) begin(args ...string) {
	f.Helper()
	kubeconfig, err := f.plane.WriteKubeconfig("webhook", "system:serviceaccount:horkos-system:horkos-webhook", "system:serviceaccounts", "system:authenticated")
	if err != nil {
		f.Fatal(err)
	}
	f.log = filepath.Join(f.run.Dir, "webhook.log")
	out, err := os.OpenFile(f.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	defer out.Close()
	f.cmd = exec.Command(f.run.Program("horkos"), append([]string{"webhook", "--kubeconfig", kubeconfig, "--address", f.address, "--health-address", f.health,
		"--tls-name", "127.0.0.1", "--state-dir", filepath.Join(f.run.Dir, "webhook"), "--shutdown-delay", "100ms", "--default-action", "allow"}, args...)...)
	f.cmd.Env = append(os.Environ(), "GOMEMLIMIT=160MiB") // as in its manifest
	f.cmd.Stdout, f.cmd.Stderr = out, out
	if err := f.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(f.end)
	began := time.Now()
	f.eventually("the webhook is ready", func() error {
		response, err := http.Get("http://" + f.health + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", response.Status)
		}
		return nil
	})
	f.Logf("ready %v after its start", time.Since(began).Round(time.Millisecond))
}

func (f *reviewed) end() {
	if f.cmd == nil {
		return
	}
	_ = f.cmd.Process.Kill()
	_ = f.cmd.Wait()
	f.cmd = nil
	if f.Failed() {
		text, _ := os.ReadFile(f.log)
		f.Logf("the log of the webhook:\n%s", text)
	}
}

// kritisPolicies are an authority and a policy in the shape of Alibaba Cloud's documents.
func kritisPolicies(k key) string {
	return fmt.Sprintf(`---
apiVersion: kritis.grafeas.io/v1beta1
kind: AttestationAuthority
metadata: {name: demo-aa, namespace: default}
spec:
  noteReference: namespaces/demo-aa
  publicKeyData: %s
  publicKeyId: 4a2ef103-5aa3-4220-89ec-kms-key-id
---
apiVersion: kritis.grafeas.io/v1beta1
kind: GenericAttestationPolicy
metadata: {name: demo-gap, namespace: default}
spec: {attestationAuthorityNames: [demo-aa]}
`, base64.StdEncoding.EncodeToString([]byte(k.pem)))
}

// TestWhatKubectlSaysOfTheWebhook: the transcripts that users of Kritis know.
func TestWhatKubectlSaysOfTheWebhook(t *testing.T) {
	f := review(t)
	f.kubectl(kritisPolicies(f.release), "apply", "-f", "-")
	refused := func(want string, args ...string) {
		t.Helper()
		f.eventually(strings.Join(args, " ")+" is refused", func() error {
			_, says, err := f.plane.Kubectl(f.ctx, args...)
			if err == nil {
				return fmt.Errorf("it is not")
			}
			if !strings.HasPrefix(says, want) {
				return fmt.Errorf("kubectl says %q, want %q", says, want)
			}
			return nil
		})
	}
	says := func(want string, stdin string, args ...string) {
		t.Helper()
		f.eventually(strings.Join(args, " ")+" is let through", func() error {
			out, err := f.tryKubectl(stdin, args...)
			if err == nil && strings.TrimSpace(out) != want {
				err = fmt.Errorf("kubectl says %q, want %q", out, want)
			}
			return err
		})
	}
	const workloads = `admission webhook "kritis-validation-hook-deployments.grafeas.io" denied the request: `
	refused("error: failed to create deployment: "+workloads+"image alpine:3.11 is not attested", "create", "deployment", "test-denied", "--image=alpine:3.11")

	digest := "sha256:" + strings.Repeat("a1", 32)
	image := "registry.example.com/acs/alpine@" + digest
	refused("error: failed to create deployment: "+workloads+"image "+image+" is not attested", "create", "deployment", "test-allow", "--image="+image)
	id := f.attestedWith("4a2ef103-5aa3-4220-89ec-kms-key-id", "registry.example.com/acs/alpine", digest)
	f.kubectl(id, "apply", "-f", "-")
	says("deployment.apps/test-allow created", "", "create", "deployment", "test-allow", "--image="+image)

	// What Kritis let pass.
	refused("error: failed to patch image update to pod template: "+workloads+"image alpine:3.12 is not attested", "set", "image", "deployment/test-allow", "alpine=alpine:3.12")
	says("deployment.apps/test-allow scaled", "", "scale", "deployment/test-allow", "--replicas=2")
	refused(`Error from server: admission webhook "kritis-validation-hook.grafeas.io" denied the request: image alpine:3.11 is not attested`,
		"run", "pod", "--image=alpine:3.11")

	says("admissionallowlist.kritis.grafeas.io/allow-acs-images created", `apiVersion: kritis.grafeas.io/v1beta1
kind: AdmissionAllowlist
metadata: {name: allow-acs-images}
spec: {patterns: [{namePattern: "registry*.*.aliyuncs.com/acs/*"}]}
`, "create", "-f", "-")
	says("deployment.apps/allowed created", "", "create", "deployment", "allowed", "--image=registry-vpc.cn-hangzhou.aliyuncs.com/acs/pause:3.2")

	for _, namespace := range []string{"kube-system", "default"} {
		f.eventually("an event in "+namespace, func() error {
			out, err := f.tryKubectl("", "-n", namespace, "get", "events", "--field-selector=reason=FailedKritisAdmission", "-o", "jsonpath={.items[*].message}")
			if err == nil && !strings.Contains(out, "image alpine:3.11 is not attested") {
				err = fmt.Errorf("the events say %q", out)
			}
			return err
		})
	}

	f.eventually("the metrics tell which policies are in force, and since when that is known", func() error {
		response, err := http.Get("http://" + f.health + "/metrics")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err == nil && !regexp.MustCompile(`(?s)horkos_objects_synced_timestamp_seconds\{layer="cluster"\} 1\.\d+e\+09.*horkos_policy_revision_info\{revision="[0-9a-f]{12}"\} 1`).Match(text) {
			err = fmt.Errorf("they are\n%s", text)
		}
		return err
	})

	f.end()
	refused("error: failed to create deployment: Internal error occurred: failed calling webhook", "create", "deployment", "away", "--image="+image)
	f.begin("--dry-run")
	f.eventually("in a dry run it is let through, with a warning", func() error {
		out, err := f.tryKubectl("", "create", "deployment", "dry", "--image=alpine:3.13")
		if err == nil && !strings.Contains(out, "Warning: ") {
			err = fmt.Errorf("kubectl says %q", out)
		}
		return err
	})
	for _, namespace := range []string{"kube-system", "default"} {
		f.eventually("an event of the dry run in "+namespace, func() error {
			out, err := f.tryKubectl("", "-n", namespace, "get", "events", "--field-selector=reason=DryRunKritisAdmission", "-o", "jsonpath={.items[*].message}")
			if err == nil && !strings.Contains(out, "image alpine:3.13 is not attested") {
				err = fmt.Errorf("the events say %q", out)
			}
			return err
		})
	}
}

// attestedWith is an ImageAttestation by the fixture's key under an id that it is given.
func (f *fixture) attestedWith(keyID, repository, digest string) string {
	f.Helper()
	text := attested(f, f.release, repository, digest)
	at := strings.Index(text, `publicKeyId: "`)
	if at < 0 {
		f.Fatal("the attestation names no key")
	}
	rest := text[at+len(`publicKeyId: "`):]
	return text[:at] + `publicKeyId: "` + keyID + rest[strings.Index(rest, `"`):]
}
