// Package cases reads the table of decision cases: what is asked, over which objects and
// evidence, and what the answer is. Every gate runs the same table.
//
// In the text of a case, sha256:a1.. stands for the digest of 32 bytes a1, and $NAME for the
// public key of the private key NAME beside it (see Record.Key), as a manifest writes it.
package cases

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
)

// Case is one row of the table.
type Case struct {
	Name string `json:"name"` // a sentence

	// Objects are manifests, or names of files of manifests beside the case: what the policy
	// folder holds. Cluster is the same of the cluster, the second origin.
	Objects []json.RawMessage `json:"objects,omitempty"`
	Cluster []json.RawMessage `json:"cluster,omitempty"`
	// Evidence is signed when the case is read, with private keys beside the case.
	Evidence []Record `json:"evidence,omitempty"`
	Request  Request  `json:"request"`
	Want     Want     `json:"want"`

	dir, file string
	line      int
}

// File is the file that the case was read from.
func (c *Case) File() string { return c.file }

// Place is that file, and the line where the case begins.
func (c *Case) Place() string { return fmt.Sprintf("%s:%d", c.file, c.line) }

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
	Digests      []image.Digest `json:"digests,omitempty"` // outermost first; that of the name when left out
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

// Want is the answer for the whole request.
type Want struct {
	Result verifier.Result `json:"result"`
	Reason verifier.Reason `json:"reason"`
	// Message is a part of the message.
	Message string `json:"message,omitempty"`
	// Missing are the questions left, after signatures were verified.
	Missing []evidence.Question `json:"missing,omitempty"`
}

// Load reads all cases of a folder: *.yaml, any number of documents a file. Edit, when
// it is not nil, is applied to the text of each file first, its digests written out.
func Load(dir string, edit func(string) string) ([]Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var all []Case
	for _, file := range files {
		list, err := loadFile(file, edit)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func read(dir string, doc *yaml.Node) (Case, error) {
	c := Case{dir: dir, line: doc.Content[0].Line}
	if err := decode(doc, &c); err != nil {
		return c, err
	}
	if c.Name == "" {
		return c, errors.New("a case has no name: write name and a sentence")
	}
	if !slices.Contains(verifier.Reasons(), c.Want.Reason) && c.Want.Reason != "" {
		return c, placedAt(doc, "want.reason", fmt.Errorf("unknown reason %.40q: want one of %s", c.Want.Reason, reasons()))
	}
	for i := range c.Request.Images {
		img := &c.Request.Images[i]
		if ref, err := image.Parse(img.Name); err == nil && ref.Digest != "" && len(img.Digests) == 0 {
			img.Digests = []image.Digest{ref.Digest}
		}
	}
	return c, nil
}

func reasons() string {
	var names []string
	for _, r := range verifier.Reasons() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// Manifests are the objects and the signed evidence of the case as one document stream,
// as a policy folder would hold them.
func (c *Case) Manifests(at time.Time) ([]byte, error) {
	var b bytes.Buffer
	if err := c.write(&b, c.Objects); err != nil {
		return nil, err
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
		document(&b, text)
	}
	return b.Bytes(), nil
}

// ClusterManifests are the objects of the cluster as one document stream.
func (c *Case) ClusterManifests() ([]byte, error) {
	var b bytes.Buffer
	err := c.write(&b, c.Cluster)
	return b.Bytes(), err
}

func (c *Case) write(b *bytes.Buffer, objects []json.RawMessage) error {
	for _, o := range objects {
		var file string
		if json.Unmarshal(o, &file) != nil {
			document(b, o)
			continue
		}
		text, err := os.ReadFile(filepath.Join(c.dir, file))
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		document(b, text)
	}
	return nil
}

func document(b *bytes.Buffer, text []byte) {
	b.WriteString("---\n")
	b.Write(bytes.TrimSpace(text))
	b.WriteByte('\n')
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
