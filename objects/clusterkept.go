package objects

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/state"
)

// keptClusterName is the file of the state folder that keeps what was in force of the
// cluster, sealed, so that a node decides before it reaches the API server, or without it.
const keptClusterName = "policy-cluster.json"

const keptClusterVersion = 1

// maxKeptCluster bounds that file.
const maxKeptCluster = 256 << 20

type keptCluster struct {
	Cluster string    `json:"cluster"` // UID of namespace kube-system
	Node    string    `json:"node"`
	Synced  time.Time `json:"synced"`
	Absent  bool      `json:"absent,omitempty"`
	// Restored says why the cluster is an older one than this copy is of.
	Restored string        `json:"restored,omitempty"`
	Kinds    []keptKind    `json:"kinds"`
	Going    []keptDeleted `json:"going,omitempty"`
	Grace    time.Time     `json:"grace,omitzero"`
}

type keptKind struct {
	Name       string            `json:"name"`
	Version    uint64            `json:"resourceVersion"`
	Definition string            `json:"definition,omitempty"` // UID of its CustomResourceDefinition
	Objects    []json.RawMessage `json:"objects"`
}

type keptDeleted struct {
	Kind   string          `json:"kind"`
	At     time.Time       `json:"at"`
	Object json.RawMessage `json:"object"`
}

// encodeReplica writes what is in force of a cluster on a node.
func encodeReplica(r *replica, node string) ([]byte, error) {
	body := keptCluster{Cluster: r.cluster, Node: node, Synced: r.synced.UTC(), Absent: r.absent, Restored: r.restored, Grace: r.grace.UTC()}
	for _, k := range r.kinds {
		kept := keptKind{Name: k.name(), Version: k.version, Definition: k.definition, Objects: []json.RawMessage{}}
		for _, at := range slices.SortedFunc(maps.Keys(k.held), func(a, b key) int {
			return strings.Compare(a.namespace+"/"+a.name, b.namespace+"/"+b.name)
		}) {
			kept.Objects = append(kept.Objects, k.held[at].Raw)
		}
		body.Kinds = append(body.Kinds, kept)
	}
	for _, d := range r.going {
		body.Going = append(body.Going, keptDeleted{d.kind, d.at.UTC(), d.object.Raw})
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return nil, err
	}
	sealed := state.Seal(keptClusterVersion, text.Bytes())
	if len(sealed) > maxKeptCluster {
		return nil, fmt.Errorf("%d bytes are more than may be kept", len(sealed))
	}
	return sealed, nil
}

// decodeReplica reads that, of any cluster and node.
func decodeReplica(text []byte) (r *replica, node string, err error) {
	body, err := state.Unseal(text, keptClusterVersion)
	if err != nil {
		return nil, "", err
	}
	var kept keptCluster
	if err := strictly(body, &kept); err != nil {
		return nil, "", err
	}
	if kept.Cluster == "" || kept.Synced.IsZero() {
		return nil, "", fmt.Errorf("it does not say of which cluster or time it is")
	}
	r = newReplica()
	r.cluster, r.absent, r.restored, r.synced, r.grace = kept.Cluster, kept.Absent, kept.Restored, kept.Synced, kept.Grace
	known := make(map[string]bool)
	for _, kk := range kept.Kinds {
		known[kk.Name] = true
		k := r.kind(kk.Name)
		if k == nil {
			return nil, "", fmt.Errorf("kind %.80q is not known", kk.Name)
		}
		k.version, k.definition = kk.Version, kk.Definition
		for _, raw := range kk.Objects {
			o, err := decodeOne(raw, k.resource)
			if err != nil {
				return nil, "", err
			}
			k.held[key{o.Namespace, o.Name}] = o
		}
	}
	for _, d := range kept.Going {
		k := r.kind(d.Kind)
		if k == nil {
			return nil, "", fmt.Errorf("kind %.80q is not known", d.Kind)
		}
		o, err := decodeOne(d.Object, k.resource)
		if err != nil {
			return nil, "", err
		}
		r.going = append(r.going, deleted{d.Kind, o, d.At})
	}
	r.kept = len(known) == len(r.kinds) // an older daemon knew fewer
	return r, kept.Node, nil
}

// decodeOne decodes an object of a resource.
func decodeOne(raw []byte, r resource) (crds.Object, error) {
	decoded, err := crds.Decode(raw, clusterSource)
	if err != nil {
		return crds.Object{}, err
	}
	if len(decoded) != 1 || decoded[0].Kind != r.kind || decoded[0].UnknownKind {
		return crds.Object{}, fmt.Errorf("want one object of kind %s", r.kind)
	}
	return decoded[0], nil
}

// readReplica reads the kept copy; os.ErrNotExist is in the chain of the error when there is none.
func readReplica(dir string, owned bool) (r *replica, node string, err error) {
	text, _, err := readFile(filepath.Join(dir, keptClusterName), maxKeptCluster, owned)
	if err != nil {
		return nil, "", err
	}
	return decodeReplica(text)
}
