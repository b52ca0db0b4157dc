// Package cases reads the table of decision cases: what is asked, over which objects and
// evidence, and what the answer is. Every gate runs the same table.
package cases

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
)

// Case is one row of the table.
type Case struct {
	Name string `json:"name"` // a sentence

	// Objects are manifests, or names of files of manifests beside the case.
	Objects []json.RawMessage `json:"objects"`
	// Evidence is signed when the case is read, with private keys beside the case.
	Evidence []Record `json:"evidence,omitempty"`
	Request  Request  `json:"request"`
	Want     Want     `json:"want"`

	dir string
}

// Request is what is asked.
type Request struct {
	Namespace     string    `json:"namespace"`
	At            time.Time `json:"at,omitzero"` // now when left out
	DefaultAction string    `json:"defaultAction,omitempty"`
	Images        []Image   `json:"images"`
}

// Image is what binding gave, or for a gate without a node the name as written.
type Image struct {
	Name         string         `json:"name"`
	Digests      []image.Digest `json:"digests,omitempty"` // outermost first
	ConfigDigest image.Digest   `json:"configDigest,omitempty"`
	// Twins are other records of the same content.
	Twins []Twin `json:"twins,omitempty"`
	// Unbound says why it could not be tied to content.
	Unbound string `json:"unbound,omitempty"`
}

// Twin is another record of the same content.
type Twin struct {
	Repository string         `json:"repository"`
	Digests    []image.Digest `json:"digests"`
}

// Record is an attestation to be signed. Times are relative to the time of the request.
type Record struct {
	Image string `json:"image"` // repository@digest: where the attestation is filed
	Key   string `json:"key"`   // the name of a private key: keys/NAME.pem
	// KeyID is the id it names; the key's own when left out.
	KeyID string `json:"keyID,omitempty"`
	// Says is the image the payload speaks of, when that is another.
	Says string `json:"says,omitempty"`
	Note string `json:"note,omitempty"`
	// SignedAt is when the signer says it signed; an hour before the request when left out.
	SignedAt Duration `json:"signedAt,omitempty"`
	// SignedExpiry and Expires are the expiry under the signature and beside it.
	SignedExpiry Duration `json:"signedExpiry,omitempty"`
	Expires      Duration `json:"expires,omitempty"`
	// Broken flips a bit of the signature.
	Broken bool `json:"broken,omitempty"`
}

// Want is the answer for the whole request.
type Want struct {
	Result verifier.Result `json:"result"`
	Reason verifier.Reason `json:"reason"`
	// Message is a part of the message.
	Message string `json:"message,omitempty"`
	// Missing are the questions left, after signatures were verified.
	Missing []evidence.Question `json:"missing,omitempty"`
}

// Duration is a duration in the form of time.ParseDuration.
type Duration time.Duration

// UnmarshalJSON reads a string such as -1h.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// Load reads all cases of a folder: *.yaml, any number of documents a file. Edit, when
// it is not nil, is applied to the text of each file first.
func Load(dir string, edit func(string) string) ([]Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var all []Case
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if edit != nil {
			data = []byte(edit(string(data)))
		}
		for _, doc := range strings.Split("\n"+string(data), "\n---\n") {
			if strings.TrimSpace(doc) == "" {
				continue
			}
			c := Case{dir: dir}
			if err := yaml.UnmarshalStrict([]byte(doc), &c); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if c.Name == "" {
				return nil, fmt.Errorf("%s: a case has no name", file)
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// Manifests are the objects and the signed evidence of the case as one document stream,
// as a policy folder would hold them.
func (c *Case) Manifests(at time.Time) ([]byte, error) {
	var b bytes.Buffer
	add := func(text []byte) {
		b.WriteString("---\n")
		b.Write(bytes.TrimSpace(text))
		b.WriteByte('\n')
	}
	for _, o := range c.Objects {
		var file string
		if err := json.Unmarshal(o, &file); err == nil {
			text, err := os.ReadFile(filepath.Join(c.dir, file))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			add(text)
			continue
		}
		add(o)
	}
	for _, r := range c.Evidence {
		o, err := r.sign(c.dir, at)
		if err != nil {
			return nil, fmt.Errorf("%s: evidence about %s: %w", c.Name, r.Image, err)
		}
		text, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		add(text)
	}
	return b.Bytes(), nil
}

func (r *Record) sign(dir string, at time.Time) (any, error) {
	filed, err := image.ParseIdentity(r.Image)
	if err != nil {
		return nil, err
	}
	says := filed
	if r.Says != "" {
		if says, err = image.ParseIdentity(r.Says); err != nil {
			return nil, err
		}
	}
	signedAt := at.Add(-time.Hour)
	if r.SignedAt != 0 {
		signedAt = at.Add(time.Duration(r.SignedAt))
	}
	var expiry time.Time
	if r.SignedExpiry != 0 {
		expiry = at.Add(time.Duration(r.SignedExpiry))
	}
	payload, err := attestation.NewPayload(says, signedAt, expiry)
	if err != nil {
		return nil, err
	}
	private, err := privateKey(filepath.Join(dir, "keys", r.Key+".pem"))
	if err != nil {
		return nil, err
	}
	signature, key, err := attestation.Sign(private, "", payload)
	if err != nil {
		return nil, err
	}
	keyID := key.ID
	if r.KeyID != "" {
		keyID = r.KeyID
	}
	if r.Broken {
		signature[len(signature)-1] ^= 1
	}
	a := horkos.Attestation{ResourceURI: r.Image, NoteName: r.Note, Attestation: &horkos.SignedPayload{
		SerializedPayload: payload, Signatures: []horkos.Signature{{Signature: signature, PublicKeyID: keyID}}}}
	if r.Expires != 0 {
		a.Expires = at.Add(time.Duration(r.Expires)).UTC().Format(time.RFC3339)
	}
	return map[string]any{
		"apiVersion": horkos.GroupVersion, "kind": horkos.KindImageAttestation,
		"metadata": map[string]string{"name": strings.Replace(string(filed.Digest), ":", "-", 1)},
		"spec":     horkos.ImageAttestationSpec{Attestations: []horkos.Attestation{a}},
	}, nil
}

func privateKey(file string) (crypto.Signer, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return attestation.ParsePKIXPrivateKey(pem)
}

// Bound is the request as a node's binding would give it.
func (c *Case) Bound(at time.Time) (*verifier.Request, error) {
	req := &verifier.Request{Namespace: c.Request.Namespace, Time: at}
	for _, i := range c.Request.Images {
		img, err := i.bound()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		req.Images = append(req.Images, img)
	}
	return req, nil
}

func (i *Image) bound() (verifier.Image, error) {
	img, err := verifier.AsWritten(i.Name)
	if err != nil {
		return img, err
	}
	img.Config = i.ConfigDigest
	if i.Unbound != "" {
		img.Unbound = i.Unbound
		return img, nil
	}
	if i.ConfigDigest != "" {
		img.Digests = append(img.Digests, i.ConfigDigest)
		img.Unbound = ""
	}
	if len(i.Digests) > 0 {
		if img.Name.Repository != "" {
			img.Candidates = []verifier.Candidate{{Repository: img.Name.Repository, Digests: i.Digests}}
		}
		img.Digests = append(img.Digests, i.Digests...)
	}
	for _, t := range i.Twins {
		if len(img.Candidates) < verifier.MaxCandidates {
			img.Candidates = append(img.Candidates, verifier.Candidate{Repository: t.Repository, Digests: t.Digests})
		}
		img.Digests = append(img.Digests, t.Digests...)
	}
	return img, nil
}
