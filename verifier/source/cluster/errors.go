package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/verifier/evidence"
)

// failure is an error of Fetch. Its text holds nothing that the server chose, which the
// errors of net/http do.
type failure struct {
	text  string
	cause error // of the context, or evidence.ErrUnusable; else nil
}

func (f *failure) Error() string { return "the API server: " + f.text }
func (f *failure) Unwrap() error { return f.cause }

// unusable is a failure of one answer, and not of the server.
func unusable(text string) error { return &failure{text, evidence.ErrUnusable} }

// refused tells a status in words of the standard, not of the server.
func refused(status int) error {
	text := fmt.Sprintf("it answered %d %s", status, http.StatusText(status))
	switch status {
	case http.StatusNotFound:
		text += ": the kind ImageAttestation is not there; apply the CRDs of Horkos"
	case http.StatusForbidden:
		text += "; the role horkos-node lets this node get imageattestations"
	case http.StatusUnauthorized:
		text += "; it does not know the certificate or token of this node"
	}
	return &failure{text: text}
}

// explain says why there is no answer.
func explain(ctx context.Context, err error) error {
	var (
		name      *net.DNSError
		errno     syscall.Errno
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		timeout   net.Error
	)
	cause := ctx.Err()
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		return &failure{"it did not answer in time", cause}
	case cause != nil:
		return &failure{"nobody waits for its answer any more", cause}
	case errors.Is(err, apiserver.ErrNotConnected):
		return &failure{text: "this node is not connected to it; the log of horkos-node says why"}
	case errors.As(err, &name):
		return &failure{text: "its name cannot be looked up"}
	case errors.As(err, &authority):
		return &failure{text: "its certificate is not of the authority that this node knows"}
	case errors.As(err, &verify):
		return &failure{text: "its certificate is not valid"}
	case errors.As(err, &errno):
		return &failure{text: errno.Error()}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &failure{text: "it did not answer in time"}
	}
	return &failure{text: "its answer is not HTTP, or ends early"}
}
