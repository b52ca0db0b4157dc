package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
	kubetesting "k8s.io/client-go/testing"

	"github.com/horkos/horkos/webhook/admission"
)

// TestAStartThatFailsLeavesNothingListening: for each reason to fail, both addresses can be
// listened at afterwards.
func TestAStartThatFailsLeavesNothingListening(t *testing.T) {
	taken := listen(t)
	defer taken.Close()
	bad := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(bad, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		spoil func(*Config)
		says  string
	}{
		"the address of reviews is taken": {func(c *Config) { c.Address = taken.Addr().String() }, "listen for reviews"},
		"the address of health is taken":  {func(c *Config) { c.HealthAddress = taken.Addr().String() }, "listen for health"},
		"no certificate":                  {func(c *Config) { c.CertFile, c.KeyFile = bad, bad }, "read the certificate of the webhook"},
		"no authority of clients":         {func(c *Config) { c.ClientCAFile = bad }, "read whose clients may ask the webhook"},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Namespace: "horkos-system", Name: "test", Address: free(t), HealthAddress: free(t), StateDir: t.TempDir(), MaximumAge: time.Hour}
			reviews, health := c.Address, c.HealthAddress
			tt.spoil(&c)
			if err := Run(t.Context(), c, "test", quiet()); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("it ends with %v", err)
			}
			for _, address := range []string{reviews, health} {
				l, err := net.Listen("tcp", address)
				if err != nil {
					t.Errorf("it still listens: %v", err)
					continue
				}
				l.Close()
			}
		})
	}
}

func free(t *testing.T) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

// TestACertificateIsShownUntilTheNextKeeperHasOne: another Keeper comes when the authorities of
// the API server are others, and reads the Secret first.
func TestACertificateIsShownUntilTheNextKeeperHasOne(t *testing.T) {
	by := authorityOfClients(t)
	certificate := func() *tls.Certificate {
		p, err := by.serve([]string{"localhost"}, nil, time.Now(), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return p.tls()
	}
	first, empty, last := &shown{}, &shown{}, &shown{}
	var c certificatesOf
	shows := func(when string, want *tls.Certificate) {
		t.Helper()
		if got, err := c.GetCertificate(nil); got != want || (err == nil) != (want != nil) {
			t.Errorf("%s: another is shown, %v", when, err)
		}
	}
	shows("before any", nil)
	c.set(empty)
	shows("the first has none", nil)
	c.set(first)
	first.certificate.Store(certificate())
	shows("it has one", first.certificate.Load())
	c.set(empty)
	shows("the second has none", first.certificate.Load())
	c.set(last)
	shows("nor has the third", first.certificate.Load())
	problem := "not read yet"
	last.problem.Store(&problem)
	if p := c.Problems(); len(p) != 1 || p[0] != problem {
		t.Errorf("the problems are %q", p)
	}
	last.certificate.Store(certificate())
	shows("the third has one", last.certificate.Load())
}

// TestWhatWaitsIsToldBeforeTheEnd: of the last reviews there are events, too.
func TestWhatWaitsIsToldBeforeTheEnd(t *testing.T) {
	client := fake.NewSimpleDynamicClient(runtime.NewScheme())
	e := newEvents(func() (dynamic.Interface, error) { return client, nil }, "test", NewMetrics(prometheus.NewRegistry()), quiet(), time.Now)
	for _, name := range []string{"a", "b", "b", "c"} {
		e.Tell(admission.Event{Reason: admission.FailedAdmission, Time: time.Now(), APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: name, Message: "no"})
	}
	over, end := context.WithCancel(t.Context())
	end()
	if err := e.Run(over); err != nil {
		t.Fatal(err)
	}
	told := make(map[string]int)
	for _, a := range client.Actions() {
		told[a.GetNamespace()]++
	}
	if told["shop"] != 3 || told["kube-system"] != 3 {
		t.Errorf("told %v, want three in each of two namespaces", told)
	}
}

// TestTheEndDoesNotWaitLongForEvents: the API server may be away by then.
func TestTheEndDoesNotWaitLongForEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleDynamicClient(runtime.NewScheme())
		writes := 0
		client.PrependReactor("create", "events", func(kubetesting.Action) (bool, runtime.Object, error) {
			writes++
			return true, nil, errors.New("away")
		})
		e := newEvents(func() (dynamic.Interface, error) { return client, nil }, "test", NewMetrics(prometheus.NewRegistry()), quiet(), time.Now)
		for n := range eventsWaiting + 10 { // more than there is room for
			e.Tell(admission.Event{Reason: admission.FailedAdmission, Namespace: fmt.Sprint("shop-", n), Name: "a"})
		}
		over, end := context.WithCancel(t.Context())
		end()
		began := time.Now()
		if err := e.Run(over); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > eventsLast || writes < eventsBurst || writes > eventsBurst+eventsRate*int(eventsLast/time.Second) {
			t.Errorf("%d writes in %s", writes, took)
		}
	})
}

// TestAKeeperThatEndsLeavesNothingBehind: there is another whenever the API server is another.
// The bubble fails when anything of it goes on.
func TestAKeeperThatEndsLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
			secrets: "SecretList", configurations: "ValidatingWebhookConfigurationList"})
		keeper := NewKeeper(KeeperOptions{Client: client, Namespace: "horkos-system", Secret: testSecret, Configurations: []string{testConfiguration},
			Names: []string{"localhost"}, Log: quiet(), Now: time.Now})
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- keeper.Run(ctx) }()
		synctest.Wait()
		if n := len(client.Actions()); n < 2 {
			t.Errorf("%d requests: it does not watch", n)
		}
		end()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	})
}
