package harness

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer bounds what is read of an answer, and an event of a watch.
const maxAnswer = 64 << 20

// Object is an object of the API as JSON has it.
type Object = map[string]any

// API is a client of an API server as one user. Paths are those of the API, with their
// query: "/api/v1/namespaces/default/pods?limit=5".
type API struct {
	server string // https://host:port
	client *http.Client
}

// APIError is a refusal by the API server.
type APIError struct {
	Code    int    `json:"code"`    // the HTTP status
	Reason  string `json:"reason"`  // NotFound, Forbidden, Invalid, ...
	Message string `json:"message"` // for a person
}

func (e *APIError) Error() string {
	return fmt.Sprintf("the API server answers %d %s: %s", e.Code, e.Reason, e.Message)
}

// IsReason tells whether the error is a refusal by the API server for the reason.
func IsReason(err error, reason string) bool {
	var refusal *APIError
	return errors.As(err, &refusal) && refusal.Reason == reason
}

// newAPI makes the client of a user, who is who the key pair says.
func newAPI(server string, authority []byte, user keyPair) (*API, error) {
	certificate, err := tls.X509KeyPair(user.certificate, user.key)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &API{server: server, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
		// A server that was killed would leave a dead connection.
		DisableKeepAlives: true,
	}}}, nil
}

// Get reads an object or a list.
func (a *API) Get(ctx context.Context, path string) (Object, error) {
	return a.do(ctx, http.MethodGet, path, "", nil)
}

// Create posts the object to its collection and returns it as it was stored.
func (a *API) Create(ctx context.Context, path string, object Object) (Object, error) {
	return a.do(ctx, http.MethodPost, path, "application/json", object)
}

// Replace puts the object in the place of the one at path.
func (a *API) Replace(ctx context.Context, path string, object Object) (Object, error) {
	return a.do(ctx, http.MethodPut, path, "application/json", object)
}

// Apply is server-side apply by the manager, with force: the object is made or changed.
func (a *API) Apply(ctx context.Context, path, manager string, object Object) (Object, error) {
	return a.do(ctx, http.MethodPatch, path+"?force=true&fieldManager="+url.QueryEscape(manager), "application/apply-patch+yaml", object)
}

// Merge patches the object at path: fields that are null are removed (RFC 7386).
func (a *API) Merge(ctx context.Context, path string, patch Object) (Object, error) {
	return a.do(ctx, http.MethodPatch, path, "application/merge-patch+json", patch)
}

// Delete deletes an object, or a collection.
func (a *API) Delete(ctx context.Context, path string) (Object, error) {
	return a.do(ctx, http.MethodDelete, path, "", nil)
}

// Raw reads what is no JSON: /readyz, /metrics, the log of a container.
func (a *API) Raw(ctx context.Context, path string) (string, error) {
	return get(ctx, a.client, a.server+path)
}

// Watch calls do with each event of the collection at path ("ADDED", "MODIFIED", "DELETED",
// "BOOKMARK"; an ERROR is returned), until do returns an error, which is returned, the
// context ends or the server ends the watch, which is io.EOF.
func (a *API) Watch(ctx context.Context, path string, do func(kind string, object Object) error) error {
	at, err := url.Parse(path)
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	query := at.Query()
	query.Set("watch", "true")
	at.RawQuery = query.Encode()
	response, err := a.send(ctx, http.MethodGet, at.String(), "", nil)
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		var event struct {
			Type   string
			Object json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		if event.Type == "ERROR" {
			return fmt.Errorf("watch %s: %w", path, refusal(http.StatusOK, event.Object))
		}
		var object Object
		if err := json.Unmarshal(event.Object, &object); err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		if err := do(event.Type, object); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	return io.EOF
}

func (a *API) do(ctx context.Context, method, path, contentType string, body Object) (Object, error) {
	ctx, cancel := withDefaultTimeout(ctx, 30*time.Second)
	defer cancel()
	object, err := a.answer(a.send(ctx, method, path, contentType, body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return object, nil
}

func (a *API) answer(response *http.Response, err error) (Object, error) {
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	var object Object
	if err := json.Unmarshal(content, &object); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return object, nil
}

// send returns an answer with a status of success, whose body the caller closes.
func (a *API) send(ctx context.Context, method, path, contentType string, body Object) (*http.Response, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, a.server+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	return nil, refusal(response.StatusCode, answer)
}

// refusal reads a v1.Status; what is none is its own message.
func refusal(status int, answer []byte) error {
	e := &APIError{}
	if err := json.Unmarshal(answer, e); err != nil || e.Message == "" {
		e.Message = string(answer)
	}
	if e.Code == 0 {
		e.Code = status
	}
	return e
}

// Field is what is in an object at a path of keys, and nil if nothing is.
func Field(object any, path ...string) any {
	for _, key := range path {
		fields, ok := object.(Object)
		if !ok {
			return nil
		}
		object = fields[key]
	}
	return object
}
