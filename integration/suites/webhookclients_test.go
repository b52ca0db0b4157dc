package suites

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
)

// callers is an authority of clients, and the certificate of one.
type callers struct {
	authority, certificate, key []byte // PEM
}

func newCallers(t *testing.T, name string) callers {
	t.Helper()
	issue := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			parent, by = template, key
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return made, key
	}
	authority, by := issue(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of " + name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	client, key := issue(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, authority, by)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return callers{text("CERTIFICATE", authority.Raw), text("CERTIFICATE", client.Raw), text("PRIVATE KEY", der)}
}

// configuration is what has an API server show the certificate to webhooks, as people write it;
// it gives the path.
func (c callers) configuration(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"client.crt": string(c.certificate), "client.key": string(c.key),
		"kubeconfig": fmt.Sprintf(`apiVersion: v1
kind: Config
users:
- name: "*"
  user: {client-certificate: %[1]s/client.crt, client-key: %[1]s/client.key}
`, dir),
		"admission.yaml": fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionWebhook
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: WebhookAdmissionConfiguration
    kubeConfigFile: %s/kubeconfig
`, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "admission.yaml")
}

// TestOnlyTheAPIServerIsAnswered: the webhook asks for a certificate, and a real API server has
// one to show.
func TestOnlyTheAPIServerIsAnswered(t *testing.T) {
	harness.RequireCluster(t)
	api, others := newCallers(t, "kube-apiserver"), newCallers(t, "kube-apiserver")
	authorities := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(authorities, api.authority, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &reviewed{followed: &followed{fixture: &fixture{T: t, run: harness.New(t), release: newKey(t)}}}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	f.ctx = ctx
	var err error
	if f.plane, err = f.run.StartControlPlane(ctx, harness.ControlPlaneOptions{APIServerArgs: []string{"--admission-control-config-file=" + api.configuration(t)}}); err != nil {
		t.Fatal(err)
	}
	f.install()
	f.kubectl("", "apply", "-f", "daemonset/webhook/rbac.yaml")
	f.address, f.health = unused(t), unused(t)
	configuration, err := os.ReadFile("../../daemonset/webhook/configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f.kubectl(strings.ReplaceAll(string(configuration), "    service:\n      name: horkos-webhook\n      namespace: horkos-system\n      path: /\n",
		"    url: https://"+f.address+"/\n"), "apply", "-f", "-")
	f.begin("--client-ca-file", authorities, "--client-name", "kube-apiserver")
	f.kubectl(kritisPolicies(f.release), "apply", "-f", "-")
	create := func(text string) {
		t.Helper()
		f.eventually("kubectl is told: "+text, func() error {
			_, says, err := f.plane.Kubectl(f.ctx, "create", "deployment", "denied", "--image=alpine:3.11")
			if err == nil || !strings.Contains(says, text) {
				return fmt.Errorf("kubectl says %q", says)
			}
			return nil
		})
	}
	create("denied the request: image alpine:3.11 is not attested")

	asker := f.asker([]teamPod{{namespace: "kube-public"}})
	for name, shows := range map[string]*callers{"none": nil, "of another authority": &others, "of the authority": &api} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: asker.roots}}
		if shows != nil {
			pair, err := tls.X509KeyPair(shows.certificate, shows.key)
			if err != nil {
				t.Fatal(err)
			}
			transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
		}
		asker.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
		status, answer, err := asker.send(strings.NewReader(string(asker.reviews[0])))
		if answered := err == nil && status == http.StatusOK; answered != (shows == &api) || (err == nil) != answered {
			t.Errorf("a client with a certificate %s: %d %s %v", name, status, answer, err)
		}
		transport.CloseIdleConnections()
	}

	// Within ten seconds the file is read again.
	if err := os.WriteFile(authorities, others.authority, 0o600); err != nil {
		t.Fatal(err)
	}
	f.eventually("the file is read again", func() error {
		text, err := os.ReadFile(f.log)
		if err == nil && strings.Count(string(text), "clients must show a certificate") != 2 {
			err = errNotYet
		}
		return err
	})
	f.end() // the API server has a connection
	f.begin("--client-ca-file", authorities, "--client-name", "kube-apiserver")
	create("failed calling webhook")
}
