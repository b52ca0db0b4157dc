// Package cluster asks the API server for attestations that are ImageAttestations there.
//
// What is known of an image digest is the object of that name, sha256-<hex>. That there is
// none is an answer; that the kind is not there, a refusal and silence are none, since a
// cluster that is being set up, or whose roles are, would else withdraw every attestation.
// The attestations are signed: the API server can hold back or fail, and both refuse.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/source/objects"
)

// Name is the name under which the source is asked and configured; no other has it.
const Name = "cluster"

const (
	fresh   = 5 * time.Minute
	timeout = 10 * time.Second
)

// The kind that is asked for, as the API's paths and answers name it, and where it is.
const (
	group    = "horkos.dev"
	resource = "imageattestations"
	locator  = "/apis/" + horkos.GroupVersion + "/" + resource
)

// Limits of an answer: its bytes, which are those of the largest object and of what API
// servers write beside it, and the values in it, each of which can take a hundred times its
// size to read. One that is not small is read alone.
const (
	maxBody   = 2 * crds.MaxObjectBytes
	smallBody = 128 << 10
	maxValues = 128 << 10
)

// Getter asks the API server for what is at a path, as apiserver.Server does.
type Getter interface {
	Get(ctx context.Context, path string, limit int) (status int, body []byte, err error)
}

// Source is the API server as a source. It is safe for concurrent use.
type Source struct {
	server Getter
	large  chan struct{} // held while an answer is read that is not small
}

// New makes the source, with how it is asked. The server may be one that is not connected yet.
func New(server Getter) evidence.Asked {
	return evidence.Asked{
		Name: Name, Locator: locator, Terms: evidence.Terms{Fresh: fresh}, Timeout: timeout,
		Source: &Source{server: server, large: make(chan struct{}, 1)},
	}
}

// Fetch asks for all that the cluster holds about an image. The error says what happened in
// at most 200 printable bytes, none of which the server chose.
func (s *Source) Fetch(ctx context.Context, q evidence.Question) ([]evidence.Attestation, error) {
	digest, err := image.ParseDigest(string(q.Identity.Digest))
	if err != nil {
		return nil, errors.New("the image has no digest that could be asked for")
	}
	hex, ok := strings.CutPrefix(string(digest), "sha256:")
	if !ok {
		return nil, nil // no ImageAttestation has the name of another digest
	}
	name := "sha256-" + hex
	found, err := s.fetch(ctx, name, q.Identity, smallBody)
	if !errors.Is(err, apiserver.ErrTooLarge) {
		return found, err
	}
	// It is asked for again rather than held by many at once.
	select {
	case s.large <- struct{}{}:
		defer func() { <-s.large }()
	case <-ctx.Done():
		return nil, explain(ctx, ctx.Err())
	}
	if found, err = s.fetch(ctx, name, q.Identity, maxBody); errors.Is(err, apiserver.ErrTooLarge) {
		return nil, unusable(fmt.Sprintf("its ImageAttestation is over %d bytes", maxBody))
	}
	return found, err
}

// fetch asks once. The error of an object over the limit is ErrTooLarge.
func (s *Source) fetch(ctx context.Context, name string, id image.Identity, limit int) ([]evidence.Attestation, error) {
	status, body, err := s.server.Get(ctx, locator+"/"+name, limit)
	switch {
	case status == http.StatusOK && errors.Is(err, apiserver.ErrTooLarge):
		return nil, apiserver.ErrTooLarge
	case status != 0 && errors.Is(err, apiserver.ErrTooLarge):
		return nil, refused(status)
	case err != nil:
		return nil, explain(ctx, err)
	case status == http.StatusOK:
		return read(body, name, id)
	case status == http.StatusNotFound && isMissing(body, name):
		return nil, nil
	}
	return nil, refused(status)
}

// isMissing tells whether a 404 is about the object, and not about its kind.
func isMissing(body []byte, name string) bool {
	var status struct {
		Kind    string `json:"kind"`
		Reason  string `json:"reason"`
		Details struct{ Name, Group, Kind string }
	}
	return json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Reason == "NotFound" &&
		status.Details.Name == name && status.Details.Group == group && status.Details.Kind == resource
}

// read gives the attestations of an answer that are filed under an image. Entries that
// cannot be used are passed over.
func read(body []byte, name string, id image.Identity) ([]evidence.Attestation, error) {
	values := 0
	for _, c := range body {
		if c == '{' || c == '[' || c == ',' {
			values++
		}
	}
	switch {
	case len(body) == 0 || body[0] != '{' || !json.Valid(body):
		return nil, unusable("it answered garbage: not an object in JSON")
	case values > maxValues:
		return nil, unusable(fmt.Sprintf("its ImageAttestation has over %d values", maxValues))
	}
	objs, err := crds.Decode(body, Name)
	if err != nil || len(objs) != 1 || objs[0].APIVersion != horkos.GroupVersion || objs[0].Kind != horkos.KindImageAttestation || objs[0].Name != name {
		return nil, unusable("it answered with something else than the ImageAttestation that was asked for")
	}
	if len(objs[0].Problems) > 0 {
		return nil, unusable("its ImageAttestation is malformed: horkos policy check says how")
	}
	records, _ := objects.Records(objs)
	return records[id], nil
}
