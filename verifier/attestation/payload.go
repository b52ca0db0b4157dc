package attestation

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	strictjson "sigs.k8s.io/json"

	"github.com/horkos/horkos/verifier/image"
)

// The types of a payload that approve an image: that of simple signing, which
// horkos writes, and Binary Authorization's.
const (
	typeSimpleSigning = "atomic container signature"
	typeBinauthz      = "Google cloud binauthz container signature"
)

// Members of a payload's optional part that mean something here; the rest is free.
const (
	timestampKey = "timestamp"          // a number, Unix seconds
	expiresKey   = "horkos.dev/expires" // a string, RFC 3339
)

// lastSecond is the end of the year 9999, the last that RFC 3339 can write.
const lastSecond = 253402300799

// payload is what is signed: the simple signing format of containers/image.
type payload struct {
	Critical critical       `json:"critical"`
	Optional map[string]any `json:"optional"`
}

type critical struct {
	Identity struct {
		DockerReference string `json:"docker-reference"`
	} `json:"identity"`
	Image struct {
		DockerManifestDigest string `json:"docker-manifest-digest"`
	} `json:"image"`
	Type string `json:"type"`
}

// decodePayload reads a payload so that no two readers can disagree about it.
func decodePayload(data []byte) (Statement, error) {
	var p payload
	if err := decodeStrict(data, &p); err != nil {
		return Statement{}, fmt.Errorf("payload: %w", err)
	}
	return p.statement()
}

// decodeStrict reads a JSON document: valid UTF-8, names in exact letter case, none twice,
// none that into does not have, nothing behind the end.
func decodeStrict(data []byte, into any) error {
	if !utf8.Valid(data) {
		return errors.New("not valid UTF-8")
	}
	strictErrors, err := strictjson.UnmarshalStrict(data, into)
	if err == nil && len(strictErrors) > 0 {
		err = strictErrors[0]
	}
	return err
}

func (p *payload) statement() (Statement, error) {
	if t := p.Critical.Type; t != typeSimpleSigning && t != typeBinauthz {
		return Statement{}, fmt.Errorf("payload has type %.80q, want %q", t, typeSimpleSigning)
	}
	digest, err := image.ParseDigest(p.Critical.Image.DockerManifestDigest)
	if err != nil {
		return Statement{}, fmt.Errorf("docker-manifest-digest: %w", err)
	}
	ref, err := image.Parse(p.Critical.Identity.DockerReference)
	if err != nil {
		return Statement{}, fmt.Errorf("docker-reference: %w", err)
	}
	if ref.Digest != "" && ref.Digest != digest {
		return Statement{}, errors.New("docker-reference has another digest than docker-manifest-digest")
	}
	s := Statement{Identity: image.Identity{Repository: ref.Repository, Digest: digest}}
	if value, ok := p.Optional[timestampKey]; ok {
		if s.Timestamp, err = readTimestamp(value); err != nil {
			return Statement{}, err
		}
	}
	if value, ok := p.Optional[expiresKey]; ok {
		if s.Expires, err = readExpires(value); err != nil {
			return Statement{}, err
		}
	}
	return s, nil
}

// readTimestamp accepts whole seconds from 1970 to 9999, also written as 1.7e9.
func readTimestamp(value any) (time.Time, error) {
	seconds, ok := value.(int64)
	if f, isFloat := value.(float64); isFloat && f == math.Trunc(f) && math.Abs(f) <= lastSecond {
		seconds, ok = int64(f), true
	}
	if !ok || seconds < 0 || seconds > lastSecond {
		return time.Time{}, errors.New("timestamp: want whole seconds since 1970")
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// readExpires accepts the same years: the first instant of year 1 would read as no expiry.
func readExpires(value any) (time.Time, error) {
	text, ok := value.(string)
	if !ok {
		return time.Time{}, errors.New(expiresKey + ": want a time as a string, RFC 3339")
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Unix() < 0 || t.Unix() > lastSecond {
		return time.Time{}, fmt.Errorf("%s: %.40q is not a time of RFC 3339 since 1970", expiresKey, text)
	}
	return t.UTC(), nil
}

// NewPayload writes the payload that says: this image is good, as of timestamp, until
// expires (zero: for ever). The repository must be in its normal form. The same arguments
// give the same bytes; times are cut to seconds.
func NewPayload(identity image.Identity, timestamp, expires time.Time) ([]byte, error) {
	p := payload{Optional: map[string]any{timestampKey: timestamp.Unix()}}
	p.Critical.Identity.DockerReference = identity.Repository
	p.Critical.Image.DockerManifestDigest = string(identity.Digest)
	p.Critical.Type = typeSimpleSigning
	if !expires.IsZero() {
		p.Optional[expiresKey] = expires.UTC().Format(time.RFC3339)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding payload: %w", err)
	}
	statement, err := decodePayload(data)
	if err != nil {
		return nil, fmt.Errorf("the payload would not be accepted: %w", err)
	}
	if statement.Identity != identity {
		return nil, fmt.Errorf("%q is not in its normal form, which is %q", identity, statement.Identity)
	}
	return data, nil
}
