package apiserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const long = 30 * time.Second

// clients are those of what options say.
func clients(t testing.TB, o Options) Clients {
	t.Helper()
	config, _, err := o.read()
	must(t, err)
	c, err := Connect(config)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func get(t testing.TB, c Clients) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	_, body, err := c.Get(ctx, "/who", 1<<10)
	must(t, err)
	return string(body)
}

func TestARenewedCertificateIsShownAtTheNextConnection(t *testing.T) {
	asRoot(t)
	w := newWorld(t, whoAmI)
	dir := t.TempDir()
	identity := filepath.Join(dir, "kubelet-client-current.pem")
	w.identify(t, identity, "first")
	c := clients(t, Options{Kubeconfig: w.kubeconfig(t, dir, m{"client-certificate": "kubelet-client-current.pem", "client-key": identity}), Owned: true})
	if got := get(t, c); got != "first" {
		t.Fatalf("the client is %q", got)
	}
	w.identify(t, identity, "second")
	if got := get(t, c); got != "first" {
		t.Errorf("on a connection that is there the client is %q", got)
	}
	// client-go reads the files at most once a second.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(long); ; <-tick.C {
		c.Close()
		// The connection on which client-go finds the new certificate is one that it ends.
		_, body, err := c.Get(t.Context(), "/who", 100)
		if string(body) == "second" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the renewed certificate is not shown: %q, %v", body, err)
		}
	}
	if got := get(t, c); got != "second" {
		t.Errorf("then the client is %q", got)
	}
}

// stalling is a connection of a server that stops, while its kernel goes on.
type stalling struct {
	net.Conn
	stalled *atomic.Bool
	closed  chan struct{}
}

func (c stalling) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.stalled.Load() {
		<-c.closed
	}
	return n, err
}

// TestAServerThatStopsIsNoticed: by the pings of HTTP/2, whose times are the environment's.
func TestAServerThatStopsIsNoticed(t *testing.T) {
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "1")
	t.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "1")
	arrived := make(chan struct{})
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	var stalled atomic.Bool
	closed := make(chan struct{})
	t.Cleanup(func() { close(closed) })
	c, err := Connect(w.behind(t, func(c net.Conn) net.Conn { return stalling{c, &stalled, closed} }))
	must(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	failed := make(chan error, 1)
	go func() { _, _, err := c.Get(ctx, "/watch", 100); failed <- err }()
	<-arrived
	stalled.Store(true)
	began := time.Now()
	if err := <-failed; err == nil || ctx.Err() != nil {
		t.Errorf("noticed after %v: %v", time.Since(began), err)
	}
}

func TestNothingIsLeftOfOldConnections(t *testing.T) {
	w := newWorld(t, whoAmI)
	dir := t.TempDir()
	identity := filepath.Join(dir, "identity.pem")
	w.identify(t, identity, "node")
	path := w.kubeconfig(t, dir, m{"client-certificate": identity, "client-key": identity})
	before := runtime.NumGoroutine()
	for range 20 {
		config, err := Config(path, "horkos-node")
		must(t, err)
		c, err := Connect(config)
		must(t, err)
		get(t, c)
		c.Close()
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	// client-go ends what follows the files of a client when the client is collected.
	for deadline := time.Now().Add(long); runtime.NumGoroutine() > before+5; <-tick.C {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, and %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestAProgramGivesCredentials(t *testing.T) {
	asRoot(t)
	w := newWorld(t, whoAmI)
	dir := t.TempDir()
	put(t, filepath.Join(dir, "credentials"), "#!/bin/sh\n"+
		`echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"'$WHOSE'"}}'`+"\n")
	must(t, os.Chmod(filepath.Join(dir, "credentials"), 0o755))
	path := w.kubeconfig(t, dir, m{"exec": m{
		"apiVersion": "client.authentication.k8s.io/v1", "command": "./credentials", "interactiveMode": "IfAvailable",
		"env": []m{{"name": "WHOSE", "value": "a-node"}},
	}})
	if got := get(t, clients(t, Options{Kubeconfig: path, Owned: true})); got != "Bearer a-node" {
		t.Errorf("the client is %q", got)
	}
	must(t, os.Chmod(filepath.Join(dir, "credentials"), 0o777))
	if _, _, err := (&Options{Kubeconfig: path, Owned: true}).read(); err == nil || !strings.Contains(err.Error(), "may be written by others") {
		t.Errorf("a program that others may write: %v", err)
	}
}

func TestATokenIsReadAgainEachMinute(t *testing.T) {
	pod := inPod(t, newWorld(t, whoAmI))
	put(t, filepath.Join(pod, "token"), "first\n")
	synctest.Test(t, func(t *testing.T) {
		config, _, err := (&Options{pod: pod, Owned: os.Geteuid() == 0}).read()
		must(t, err)
		config.CAData = nil
		config.Transport = echo{}
		c, err := Connect(config)
		must(t, err)
		if got := get(t, c); got != "Bearer first" {
			t.Fatalf("the client is %q", got)
		}
		put(t, filepath.Join(pod, "token"), "second\n")
		time.Sleep(time.Minute)
		if got := get(t, c); got != "Bearer second" {
			t.Errorf("the client is %q", got)
		}
	})
}

// echo answers with the credentials of the client.
type echo struct{}

func (echo) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(r.Header.Get("Authorization")))}, nil
}

// inPod has this program think that it is in a pod of a cluster, and gives its folder.
func inPod(t *testing.T, w *world) string {
	t.Helper()
	host, port, err := net.SplitHostPort(w.Listener.Addr().String())
	must(t, err)
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	pod := t.TempDir()
	put(t, filepath.Join(pod, "ca.crt"), string(w.ca))
	put(t, filepath.Join(pod, "token"), "token")
	return pod
}

func TestAPodWithoutAnAuthorityBelievesNobody(t *testing.T) {
	pod := inPod(t, newWorld(t, whoAmI))
	o := Options{pod: pod}
	must(t, os.Remove(filepath.Join(pod, "ca.crt")))
	if _, _, err := o.read(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no ca.crt: %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, _, err := o.read(); err == nil || !strings.Contains(err.Error(), "not in a pod") {
		t.Errorf("no pod: %v", err)
	}
}

func TestADaemonRefusesWhatOthersMayHaveWritten(t *testing.T) {
	asRoot(t)
	w := newWorld(t, whoAmI)
	tests := map[string]struct {
		spoil func(dir string)
		want  string
	}{
		"all is root's":                   {func(string) {}, ""},
		"a kubeconfig of another":         {func(dir string) { must(t, os.Chown(dir+"/kubeconfig", 1000, 0)) }, "kubeconfig: does not belong to root"},
		"a kubeconfig that all may write": {func(dir string) { must(t, os.Chmod(dir+"/kubeconfig", 0o666)) }, "may be written by others"},
		"a certificate of another":        {func(dir string) { must(t, os.Chown(dir+"/tls.crt", 1000, 0)) }, "tls.crt: does not belong to root"},
		"a key that a group may write":    {func(dir string) { must(t, os.Chmod(dir+"/tls.key", 0o620)) }, "tls.key: may be written by others"},
		"an authority that all may write": {func(dir string) { must(t, os.Chmod(dir+"/ca.crt", 0o646)) }, "ca.crt: may be written by others"},
		"no kubeconfig":                   {func(dir string) { must(t, os.Remove(dir+"/kubeconfig")) }, "no such file"},
		"an empty kubeconfig":             {func(dir string) { put(t, dir+"/kubeconfig", "") }, "kubeconfig: "},
		"half a kubeconfig": {func(dir string) {
			put(t, dir+"/kubeconfig", `{"apiVersion": "v1", "kind": "Config", "users": [{"secret`)
		}, "kubeconfig: "},
		"a kubeconfig that is a pipe": {func(dir string) {
			must(t, os.Remove(dir+"/kubeconfig"))
			must(t, syscall.Mkfifo(dir+"/kubeconfig", 0o600))
		}, "not a regular file"},
		"a kubeconfig over the limit":    {func(dir string) { put(t, dir+"/kubeconfig", strings.Repeat("#secret\n", maxFile/8+1)) }, "more than"},
		"no certificate":                 {func(dir string) { must(t, os.Remove(dir+"/tls.crt")) }, "no such file"},
		"an empty certificate":           {func(dir string) { put(t, dir+"/tls.crt", "") }, "the client certificate"},
		"the key of another certificate": {func(dir string) { _, key := w.sign(t, "x"); put(t, dir+"/tls.key", string(key)) }, "the client certificate"},
		"an authority that is none":      {func(dir string) { put(t, dir+"/ca.crt", "secret") }, "holds no certificate"},
		"a server that proves nothing":   {func(dir string) { writeKubeconfig(t, dir, m{"server": w.URL, "insecure-skip-tls-verify": true}, m{}) }, "without a proof of who it is"},
		"a server without TLS":           {func(dir string) { writeKubeconfig(t, dir, m{"server": "http://127.0.0.1:1"}, m{}) }, "without a proof of who it is"},
		"a token that is not there":      {func(dir string) { w.kubeconfig(t, dir, m{"tokenFile": "nowhere"}) }, "no such file"},
		"a program that is not there": {func(dir string) {
			w.kubeconfig(t, dir, m{"exec": m{"apiVersion": "client.authentication.k8s.io/v1", "command": "./nowhere", "interactiveMode": "Never"}})
		}, "the program that gives credentials"},
		"a user that is not in it": {func(dir string) {
			put(t, dir+"/kubeconfig", `{"apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x", "user": "y"}}]}`)
		}, "kubeconfig: "},
		"a kubeconfig that is a list":        {func(dir string) { put(t, dir+"/kubeconfig", "- secret") }, "kubeconfig: "},
		"a kubeconfig of a later version":    {func(dir string) { put(t, dir+"/kubeconfig", `{"apiVersion": "v2", "kind": "Config"}`) }, "kubeconfig: "},
		"a kubeconfig without a current one": {func(dir string) { put(t, dir+"/kubeconfig", `{"apiVersion": "v1", "kind": "Config"}`) }, "kubeconfig: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			certPEM, keyPEM := w.sign(t, "node")
			put(t, dir+"/tls.crt", string(certPEM))
			put(t, dir+"/tls.key", string(keyPEM))
			put(t, dir+"/ca.crt", string(w.ca))
			writeKubeconfig(t, dir, m{"server": w.URL, "certificate-authority": "ca.crt"}, m{"client-certificate": "tls.crt", "client-key": "tls.key"})
			tt.spoil(dir)
			config, _, err := (&Options{Kubeconfig: dir + "/kubeconfig", Owned: true}).read()
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want == "":
			case err == nil || config != nil || !strings.Contains(err.Error(), tt.want):
				t.Errorf("error %v, want %q", err, tt.want)
			case strings.Contains(err.Error(), "secret"):
				t.Errorf("what is in the file is told: %v", err)
			}
		})
	}
}

func TestAnOperatorsKubeconfigIsHisOwn(t *testing.T) {
	w := newWorld(t, whoAmI)
	dir := t.TempDir()
	path := w.kubeconfig(t, dir, m{"token": "mine"})
	must(t, os.Chmod(path, 0o666))
	config, err := Config(path, "horkos")
	must(t, err)
	if !strings.HasPrefix(config.UserAgent, "horkos/") {
		t.Errorf("user agent %q", config.UserAgent)
	}
	c, err := Connect(config)
	must(t, err)
	defer c.Close()
	if got := get(t, c); got != "Bearer mine" {
		t.Errorf("the client is %q", got)
	}
}

func TestAnAnswerHasALimit(t *testing.T) {
	const limit = 1000
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/missing") {
			w.WriteHeader(http.StatusNotFound)
		}
		size := limit
		if strings.HasSuffix(r.URL.Path, "/more") {
			size = limit + 1
		}
		_, _ = w.Write([]byte(strings.Repeat("x", size)))
	})
	c := clients(t, Options{Kubeconfig: w.kubeconfig(t, t.TempDir(), m{})})
	for path, want := range map[string]struct {
		status int
		err    error
	}{"/a": {200, nil}, "/a/more": {200, ErrTooLarge}, "/missing": {404, nil}} {
		status, body, err := c.Get(t.Context(), path, limit)
		if status != want.status || !errors.Is(err, want.err) || (err == nil) != (len(body) == limit) {
			t.Errorf("%s: %d, %d bytes, %v", path, status, len(body), err)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	stranger := newWorld(t, func(http.ResponseWriter, *http.Request) { t.Error("another server is asked") })
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, stranger.URL, http.StatusFound) })
	c := clients(t, Options{Kubeconfig: w.kubeconfig(t, t.TempDir(), m{"token": "secret"})})
	if status, _, err := c.Get(t.Context(), "/", 1000); status != http.StatusFound || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	if _, err := c.Objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "xs"}).Get(t.Context(), "x", metav1.GetOptions{}); err == nil {
		t.Error("no error")
	}
}

func TestRequestsHaveARate(t *testing.T) {
	var asked atomic.Int32
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}}`))
	})
	c := clients(t, Options{Kubeconfig: w.kubeconfig(t, t.TempDir(), m{})})
	what := schema.GroupVersionResource{Version: "v1", Resource: "xs"}
	for name, ask := range map[string]func(context.Context) error{
		"Get": func(ctx context.Context) error { _, _, err := c.Get(ctx, "/", 1000); return err },
		"Objects.Get": func(ctx context.Context) error {
			_, err := c.Objects.Resource(what).Get(ctx, "x", metav1.GetOptions{})
			return err
		},
	} {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		for asked.Store(0); ask(ctx) == nil; {
		}
		cancel()
		if n, most := asked.Load(), burst+1+int32(time.Since(began).Seconds()*requests); n < burst || n > most {
			t.Errorf("%s: %d requests, want %d to %d", name, n, burst, most)
		}
	}
}
