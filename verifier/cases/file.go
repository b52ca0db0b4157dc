package cases

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"
)

// LoadFile reads the cases of one file, any number of documents.
func LoadFile(file string) ([]Case, error) { return loadFile(file, nil) }

func loadFile(file string, edit func(string) string) ([]Case, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	dir, text := filepath.Dir(file), expandDigests(string(data))
	if edit != nil {
		text = edit(text)
	}
	if text, err = expandKeys(dir, text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	docs, err := split(text)
	if err != nil {
		return nil, fmt.Errorf("%s%w", file, syntax(err))
	}
	var all []Case
	for _, doc := range docs {
		c, err := read(dir, doc)
		if err != nil {
			var at *placed
			line := doc.Content[0].Line
			if errors.As(err, &at) {
				line = at.line
			}
			return nil, fmt.Errorf("%s:%d: %w", file, line, err)
		}
		c.file = file
		all = append(all, c)
	}
	return all, nil
}

var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): (.*)`)

// syntax writes an error of the parser as what follows the name of a file.
func syntax(err error) error {
	if m := syntaxLine.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf(":%s: %s", m[1], m[2])
	}
	return fmt.Errorf(": %w", err)
}

// split has the parser find the documents: one that is not seen would count as passed.
func split(text string) (docs []*yaml.Node, err error) {
	dec := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		var n yaml.Node
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			return nil, err
		}
		if n.Kind != yaml.DocumentNode || n.Content[0].ShortTag() == "!!null" {
			continue
		}
		docs = append(docs, &n)
	}
}

// Files are the paths of the objects that the case has in files or folders.
func (c *Case) Files() []string {
	files, _ := c.apart(c.Objects)
	return files
}

// ClusterFiles are those of the cluster.
func (c *Case) ClusterFiles() []string {
	files, _ := c.apart(c.Cluster)
	return files
}

// Inline is what Manifests gives without the objects in files.
func (c *Case) Inline(at time.Time) ([]byte, error) {
	inline := *c
	_, inline.Objects = c.apart(c.Objects)
	return inline.Manifests(at)
}

// ClusterInline is what ClusterManifests gives without the objects in files.
func (c *Case) ClusterInline() ([]byte, error) {
	inline := *c
	_, inline.Cluster = c.apart(c.Cluster)
	return inline.ClusterManifests()
}

// apart tells the names of files from the objects that stand in the case itself.
func (c *Case) apart(objects []json.RawMessage) (files []string, inline []json.RawMessage) {
	for _, o := range objects {
		var file string
		if json.Unmarshal(o, &file) == nil {
			files = append(files, filepath.Join(c.dir, file))
		} else {
			inline = append(inline, o)
		}
	}
	return files, inline
}
