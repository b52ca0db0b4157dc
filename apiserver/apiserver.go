// Package apiserver is how Horkos reaches the API server of the cluster, and as whom: on a
// host with the kubelet's client certificate, in a pod with the token of its service account.
//
// What rotates is followed. A certificate, a key and a token that a kubeconfig or a pod names
// as files are read again by client-go: at each new connection, of which there is one when
// the certificate has changed (looked at every 5 minutes; the first request by the new one may
// fail), and a token each minute. The kubeconfig itself and the authorities of the server are read again by
// Server, which then connects anew.
//
// A connection that was cut without a word is noticed within 20 s, and one to a server that
// is there and says nothing within 45 s (by the pings of HTTP/2, as client-go sets them).
package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/client-go/util/flowcontrol"
)

// Requests a second, and at once, of all clients together; those of Get are counted apart,
// so that neither waits for the other. A watch is one request.
const (
	requests = 10
	burst    = 20
)

// ErrTooLarge is in the chain of the error of Get about an answer that is over its limit.
var ErrTooLarge = errors.New("too large")

// Clients are what talks to the API server.
type Clients struct {
	Objects  dynamic.Interface
	Metadata metadata.Interface

	base   *url.URL
	client *http.Client
	gets   flowcontrol.RateLimiter
	conns  *connrotation.Dialer
}

// Connect makes the clients. Nothing is asked yet.
func Connect(config *rest.Config) (Clients, error) {
	c, err := connect(rest.CopyConfig(config))
	if err != nil {
		return Clients{}, fmt.Errorf("prepare to reach the API server: %w", err)
	}
	return c, nil
}

func connect(config *rest.Config) (c Clients, err error) {
	if config.Dial == nil {
		config.Dial = defaultDialer().DialContext
	}
	c.conns = connrotation.NewDialer(config.Dial)
	config.Dial = c.conns.DialContext
	if config.RateLimiter == nil {
		config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(cmp.Or(config.QPS, requests), cmp.Or(config.Burst, burst))
	}
	c.gets = flowcontrol.NewTokenBucketRateLimiter(cmp.Or(config.QPS, requests), cmp.Or(config.Burst, burst))
	// The server's words belong to no log of ours.
	config.WarningHandlerWithContext = rest.NoWarnings{}
	if c.base, _, err = rest.DefaultServerUrlFor(config); err != nil {
		return Clients{}, err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return Clients{}, err
	}
	// A redirect, which API servers do not answer with, would carry the token along.
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.client = &http.Client{Transport: client.Transport, CheckRedirect: refuse}
	if c.Objects, err = dynamic.NewForConfigAndClient(config, c.client); err != nil {
		return Clients{}, err
	}
	if c.Metadata, err = metadata.NewForConfigAndClient(config, c.client); err != nil {
		return Clients{}, err
	}
	return c, nil
}

// Close ends all connections, and so what waits for an answer on them. A client that is
// used after it makes new ones.
func (c Clients) Close() { c.conns.CloseAll() }

// Get asks for what is at a path of the API, as JSON, and gives the status and the body of
// the answer, whatever it is. A body over limit bytes is ErrTooLarge and is not read on; the
// status is given then too. It is asked once: who asks is the one to ask again.
func (c Clients) Get(ctx context.Context, path string, limit int) (status int, body []byte, err error) {
	if err := c.gets.Wait(ctx); err != nil {
		return 0, nil, fmt.Errorf("wait to ask the API server: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(path).String(), nil)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the API server: %w", err)
	}
	request.Header.Set("Accept", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the API server: %w", err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, int64(limit)+1))
	switch {
	case err != nil:
		return response.StatusCode, nil, fmt.Errorf("read an answer of the API server: %w", err)
	case len(body) > limit:
		return response.StatusCode, nil, fmt.Errorf("read an answer of the API server: over %d bytes: %w", limit, ErrTooLarge)
	}
	return response.StatusCode, body, nil
}
