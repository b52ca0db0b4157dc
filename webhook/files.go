package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/horkos/horkos/state"
)

const (
	rereadEvery = 10 * time.Second
	maxFile     = 1 << 20
)

// Files is a certificate that somebody else renews, in files. What the API server believes is
// somebody else's too.
type Files struct {
	certificate, key string // paths
	metrics          *Metrics
	log              *slog.Logger

	shown atomic.Pointer[tls.Certificate]
	text  []byte // of both, as they are shown
	told  string
}

// NewFiles reads a certificate, with those between it and its authority, and its key, in PEM.
func NewFiles(certificate, key string, metrics *Metrics, log *slog.Logger) (*Files, error) {
	f := &Files{certificate: certificate, key: key, metrics: metrics, log: log}
	if err := f.read(); err != nil {
		return nil, fmt.Errorf("read the certificate of the webhook: %w", err)
	}
	return f, nil
}

// GetCertificate is for a tls.Config.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.shown.Load(), nil
}

// Problems are none: what is in the files is shown, and that it is not believed is seen by
// those who do not.
func (f *Files) Problems() []string { return nil }

// Run looks at the files every 10 seconds until the context ends. Files that do not fit, as
// they do while one of the two is written, change nothing.
func (f *Files) Run(ctx context.Context) error {
	return rereading(ctx, f.look)
}

// rereading looks at what is in files again and again, until the context ends.
func rereading(ctx context.Context, look func()) error {
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			look()
		}
	}
}

func (f *Files) look() {
	err := f.read()
	text := ""
	if err != nil {
		if text = err.Error(); text != f.told {
			f.log.Error("the certificate of the webhook cannot be read again: the one before is shown", "error", err)
		}
	}
	f.told = text
	f.metrics.failing.Set(0)
	if err != nil {
		f.metrics.failing.Set(1)
	}
}

func (f *Files) read() error {
	certificate, err := readFile(f.certificate)
	if err != nil {
		return err
	}
	key, err := readFile(f.key)
	if err != nil {
		return err
	}
	text := bytes.Join([][]byte{certificate, key}, []byte{0})
	if bytes.Equal(text, f.text) {
		return nil
	}
	c, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", f.certificate, f.key, err)
	}
	if c.Leaf == nil {
		return errors.New("no certificate")
	}
	f.text = text
	f.shown.Store(&c)
	f.metrics.expiry.Set(float64(c.Leaf.NotAfter.Unix()))
	f.log.Info("a certificate is shown", "file", f.certificate, "serial", c.Leaf.SerialNumber.Text(16), "until", c.Leaf.NotAfter)
	return nil
}

func readFile(path string) ([]byte, error) {
	f, _, err := state.Open(path)
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
