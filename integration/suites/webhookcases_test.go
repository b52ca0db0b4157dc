package suites

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/integration/harness"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/cases"
	"github.com/horkos/horkos/webhook"
)

// asked runs the webhook for cases, each with a webhook of its own, that knows nothing yet.
type asked struct {
	kubeconfig       string // with the rights of the webhook
	certificate, key string // files
	client           *http.Client

	asked int
	left  map[string]int // cases that were not asked, by why
	took  time.Duration  // more than the node's part of the cases did

	dir    string // of the webhooks' state
	ending sync.WaitGroup
}

func newAsked(t *testing.T, kubeconfig string) *asked {
	t.Helper()
	dir := t.TempDir()
	a := &asked{kubeconfig: kubeconfig, certificate: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"), left: make(map[string]int), dir: dir}
	t.Cleanup(a.ending.Wait)
	roots := certify(t, a.certificate, a.key)
	a.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	return a
}

// certify writes a certificate for 127.0.0.1 and its key, and gives who believes it.
func certify(t *testing.T, certificate, key string) *x509.CertPool {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "webhook"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)
	return roots
}

// start runs a webhook that decides by what is in the cluster. What it gives asks it about the
// case and tells it to end, and is to be called. It ends while the next case is prepared: it
// writes events first, at the rate at which it may ask the API server.
func (a *asked) start(t *testing.T, c *cases.Case) (ask func()) {
	t.Helper()
	a.asked++
	var log bytes.Buffer // read when nobody writes any more
	config := webhook.Config{
		Kubeconfig: a.kubeconfig, Namespace: "horkos-system", Name: "webhook", Address: unused(t), HealthAddress: unused(t), StateDir: filepath.Join(a.dir, "state"+strconv.Itoa(a.asked)),
		DefaultAction: verifier.DefaultAction(c.Request.DefaultAction == "allow"), CertFile: a.certificate, KeyFile: a.key, MaximumAge: time.Hour,
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	a.ending.Go(func() { ended <- webhook.Run(ctx, config, "test", slog.New(slog.NewTextHandler(&log, nil))) })
	return func() {
		t.Helper()
		began := time.Now()
		defer func() { a.took += time.Since(began) }()
		limit, end := context.WithTimeout(ctx, 10*time.Second)
		defer end()
		if err := harness.Poll(limit, "the webhook to be ready", func(ctx context.Context) error { return a.ready(ctx, config.HealthAddress) }); err != nil {
			t.Error(err)
		} else {
			a.compare(t, c, config.Address)
		}
		select {
		case err := <-ended:
			t.Fatalf("the webhook ended by itself: %v", err)
		default:
		}
		cancel()
		if t.Failed() {
			<-ended
			t.Logf("the log of the webhook:\n%s", &log)
		}
	}
}

func (a *asked) ready(ctx context.Context, health string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}

// reviewAnswer is an AdmissionReview as it is answered.
type reviewAnswer struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Response   struct {
		UID     string `json:"uid"`
		Allowed bool   `json:"allowed"`
		Status  *struct {
			Message string `json:"message"`
			Code    int    `json:"code"`
			Details struct {
				Causes []struct{ Reason, Message string } `json:"causes"`
			} `json:"details"`
		} `json:"status"`
		AuditAnnotations map[string]string `json:"auditAnnotations"`
	} `json:"response"`
}

// reviewOfPod is a review of the creation of a pod with containers of the images.
func reviewOfPod(namespace string, images ...string) []byte {
	var containers []any
	for i, image := range images {
		containers = append(containers, map[string]any{"name": fmt.Sprintf("c%d", i), "image": image})
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": map[string]any{
		"uid": "u1", "operation": "CREATE", "namespace": namespace, "name": "cart", "userInfo": map[string]any{"username": "alice"},
		"kind":     map[string]any{"group": "", "version": "v1", "kind": "Pod"},
		"resource": map[string]any{"group": "", "version": "v1", "resource": "pods"},
		"object": map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "cart", "namespace": namespace},
			"spec": map[string]any{"containers": containers}},
	}})
	if err != nil {
		panic(err) // texts and maps
	}
	return text
}

// compare asks about a pod with the images of a case, as they are written.
func (a *asked) compare(t *testing.T, c *cases.Case, address string) {
	t.Helper()
	var images []string
	for _, i := range c.Request.Images {
		images = append(images, i.Name)
	}
	response, err := a.client.Post("https://"+address+"/?timeout=10s", "application/json", bytes.NewReader(reviewOfPod(c.Request.Namespace, images...)))
	if err != nil {
		t.Error(err)
		return
	}
	defer response.Body.Close()
	var got reviewAnswer
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil || response.StatusCode != http.StatusOK || got.Response.UID != "u1" {
		t.Errorf("%s: %+v, %v", response.Status, got, err)
		return
	}
	r := &got.Response
	result, reason := c.Want.Result.String(), string(c.Want.Reason)
	if allowed := c.Want.Result == verifier.Allowed; r.Allowed != allowed || r.AuditAnnotations["result"] != result || r.AuditAnnotations["reason"] != reason {
		t.Errorf("the webhook says allowed=%v, %v, want %s %s\n%+v", r.Allowed, r.AuditAnnotations, result, reason, r.Status)
		return
	} else if allowed {
		if r.Status != nil {
			t.Errorf("it is allowed, and has a status: %+v", r.Status)
		}
		return
	}
	if s := r.Status; s == nil || s.Code != http.StatusForbidden || len(s.Details.Causes) != 1 || s.Details.Causes[0].Reason != reason || s.Details.Causes[0].Message != result ||
		!strings.Contains(s.Message, c.Want.Message) {
		t.Errorf("the webhook says %+v, want %s %s, and %q in the message", s, result, reason, c.Want.Message)
	}
}

// told logs what was asked and what was not.
func (a *asked) told(t *testing.T, ran, floor int) {
	t.Helper()
	t.Logf("of %d cases the webhook was asked %d, which took %v more, %v a case; not asked: %v",
		ran, a.asked, a.took.Round(time.Millisecond), (a.took / time.Duration(max(a.asked, 1))).Round(time.Millisecond), a.left)
	if a.asked < floor {
		t.Errorf("the webhook was asked about %d cases, want %d at least", a.asked, floor)
	}
}
