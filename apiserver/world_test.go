package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func asRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: files of a daemon belong to root")
	}
}

// world is a certificate authority, and an API server that knows its clients by it.
type world struct {
	*httptest.Server
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	ca          []byte // PEM
}

func newWorld(t testing.TB, handler http.HandlerFunc) *world {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := certificate("authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	authority, err := x509.ParseCertificate(der)
	must(t, err)
	w := &world{certificate: authority, key: key, ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	serving, err := tls.X509KeyPair(w.sign(t, "server"))
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	w.Server = httptest.NewUnstartedServer(handler)
	w.EnableHTTP2 = true
	w.TLS = &tls.Config{Certificates: []tls.Certificate{serving}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	w.StartTLS()
	t.Cleanup(w.Close)
	return w
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
}

// sign gives a certificate of a name and its key, in PEM.
func (w *world) sign(t testing.TB, name string) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, certificate(name), w.certificate, key.Public(), w.key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// identify puts a certificate and its key into one file, by rename, as the kubelet does.
func (w *world) identify(t testing.TB, path, name string) {
	t.Helper()
	certPEM, keyPEM := w.sign(t, name)
	put(t, path, string(certPEM)+string(keyPEM))
}

func put(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path+".new", []byte(text), 0o600))
	must(t, os.Rename(path+".new", path))
}

type m = map[string]any

// kubeconfig writes one with that user, and gives its path.
func (w *world) kubeconfig(t testing.TB, dir string, user m) string {
	t.Helper()
	return writeKubeconfig(t, dir, m{"server": w.URL, "certificate-authority-data": w.ca}, user)
}

func writeKubeconfig(t testing.TB, dir string, cluster, user m) string {
	t.Helper()
	text, err := json.Marshal(m{
		"apiVersion": "v1", "kind": "Config", "current-context": "x",
		"clusters": []m{{"name": "x", "cluster": cluster}},
		"users":    []m{{"name": "x", "user": user}},
		"contexts": []m{{"name": "x", "context": m{"cluster": "x", "user": "x"}}},
	})
	must(t, err)
	path := filepath.Join(dir, "kubeconfig")
	put(t, path, string(text))
	return path
}

// whoAmI answers with the names of the client.
func whoAmI(w http.ResponseWriter, r *http.Request) {
	name := r.Header.Get("Authorization")
	for _, c := range r.TLS.PeerCertificates {
		name += c.Subject.CommonName
	}
	_, _ = w.Write([]byte(name))
}

// wrapped gives the connections that a listener accepts as others.
type wrapped struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l wrapped) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

// behind serves at another address too, on connections that are wrapped, and says how it
// is reached there.
func (w *world) behind(t testing.TB, wrap func(net.Conn) net.Conn) *rest.Config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{Handler: w.Config.Handler, TLSConfig: w.TLS.Clone()}
	go func() { _ = server.ServeTLS(wrapped{listener, wrap}, "", "") }()
	t.Cleanup(func() { server.Close() })
	config, _, err := (&Options{Kubeconfig: writeKubeconfig(t, t.TempDir(),
		m{"server": "https://" + listener.Addr().String(), "certificate-authority-data": w.ca}, m{})}).read()
	must(t, err)
	return config
}
