package apiserver

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/horkos/horkos/state"
	"github.com/horkos/horkos/version"
)

// maxFile bounds a kubeconfig and each file that it names, in bytes.
const maxFile = 1 << 20

// podFolder is where a pod finds the token of its service account.
const podFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

// Options say how the API server is reached.
type Options struct {
	Kubeconfig string // the path of a kubeconfig; empty: as a pod reaches it
	Program    string // the name that the API server's records show

	// Owned is for a daemon that believes what the API server says: the kubeconfig and all files
	// that it names must be root's and writable by nobody else, and the server must prove who it is.
	Owned bool

	// Rate and Burst bound what is asked in a second, of lists and of single objects each; zero:
	// what is enough for a node.
	Rate  float32
	Burst int

	pod string // in place of podFolder
}

// Config reads how to reach the API server: from the kubeconfig file, or, where its path is
// empty, from what a pod is given. Certificates and tokens that are named by files are read
// again when they change.
func Config(kubeconfig, program string) (*rest.Config, error) {
	config, _, err := (&Options{Kubeconfig: kubeconfig, Program: program}).read()
	return config, err
}

// mark tells apart what a connection cannot follow: it changes with the kubeconfig and the
// authorities, not with a certificate or token that is renewed in its file.
type mark [sha256.Size]byte

// read reads and checks the configuration of now.
func (o *Options) read() (*rest.Config, mark, error) {
	config, text, err := o.find()
	if err == nil {
		err = o.check(config)
	}
	if err != nil {
		return nil, mark{}, fmt.Errorf("read how to reach the API server: %w", err)
	}
	config.UserAgent = o.Program + "/" + version.String()
	config.Dial = defaultDialer().DialContext
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.QPS, config.Burst = cmp.Or(o.Rate, requests), cmp.Or(o.Burst, burst)
	return config, sha256.Sum256(bytes.Join([][]byte{[]byte(config.Host), text, config.CAData}, []byte{0})), nil
}

func (o *Options) find() (*rest.Config, []byte, error) {
	if o.Kubeconfig == "" {
		config, err := o.inPod()
		return config, nil, err
	}
	text, err := o.file(o.Kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	config, err := parse(text, o.Kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", o.Kubeconfig, err)
	}
	return config, text, nil
}

// parse reads a kubeconfig. Paths in it are relative to its folder.
func parse(text []byte, path string) (*rest.Config, error) {
	named, err := clientcmd.Load(text)
	if err != nil {
		return nil, err
	}
	for _, c := range named.Clusters {
		c.LocationOfOrigin = path
	}
	for _, u := range named.AuthInfos {
		u.LocationOfOrigin = path
	}
	if err := clientcmd.ResolveLocalPaths(named); err != nil {
		return nil, err
	}
	return clientcmd.NewDefaultClientConfig(*named, &clientcmd.ConfigOverrides{}).ClientConfig()
}

// inPod is what client-go's own does, but for a missing authority: then there the
// system's are believed.
func (o *Options) inPod() (*rest.Config, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("not in a pod (KUBERNETES_SERVICE_HOST is not set), and no kubeconfig is given")
	}
	folder := cmp.Or(o.pod, podFolder)
	token := filepath.Join(folder, "token")
	if _, err := o.file(token); err != nil {
		return nil, err
	}
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(host, port),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(folder, "ca.crt")},
		BearerTokenFile: token,
	}, nil
}

// check looks at the files that a configuration names, and reads the authorities. They
// would else be read again when the owner of the file is another.
func (o *Options) check(c *rest.Config) error {
	if o.Owned {
		if c.Insecure || !rest.IsConfigTransportTLS(*c) {
			return fmt.Errorf("%s: the server is believed without a proof of who it is; use https, and name its certificate-authority", c.Host)
		}
		if err := o.checkExec(c); err != nil {
			return err
		}
	}
	if len(c.CAData) == 0 && c.CAFile != "" {
		var err error
		if c.CAData, err = o.file(c.CAFile); err != nil {
			return err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(c.CAData) {
			return fmt.Errorf("%s: holds no certificate in PEM", c.CAFile)
		}
	}
	c.CAFile = ""
	if c.BearerTokenFile != "" {
		if _, err := o.file(c.BearerTokenFile); err != nil {
			return err
		}
	}
	return o.checkPair(c)
}

// checkPair looks whether there is a client certificate with its key, where one is named.
func (o *Options) checkPair(c *rest.Config) error {
	read := func(data []byte, path string) ([]byte, error) {
		if len(data) > 0 || path == "" {
			return data, nil
		}
		return o.file(path)
	}
	certificate, err := read(c.CertData, c.CertFile)
	if err != nil {
		return err
	}
	key, err := read(c.KeyData, c.KeyFile)
	if err != nil {
		return err
	}
	if len(certificate)+len(key) == 0 && c.CertFile+c.KeyFile == "" {
		return nil
	}
	if _, err := tls.X509KeyPair(certificate, key); err != nil {
		return fmt.Errorf("the client certificate %s: %w", c.CertFile, err)
	}
	return nil
}

// checkExec holds the program that gives credentials to what the daemon can believe. There
// is nobody whom it could ask.
func (o *Options) checkExec(c *rest.Config) error {
	if c.ExecProvider == nil {
		return nil
	}
	c.ExecProvider.StdinUnavailable, c.ExecProvider.StdinUnavailableMessage = true, "a daemon has none"
	path, err := exec.LookPath(c.ExecProvider.Command)
	if err != nil {
		return fmt.Errorf("the program that gives credentials: %w", err)
	}
	f, _, err := state.OpenOwned(path)
	if err != nil {
		return fmt.Errorf("the program that gives credentials: %w", err)
	}
	return f.Close()
}

func (o *Options) file(path string) ([]byte, error) {
	open := state.Open
	if o.Owned {
		open = state.OpenOwned
	}
	f, _, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := state.ReadAtMost(f, maxFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}
