package objects

import (
	"context"
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/horkos/horkos/crds"
)

// maxValues bounds the values in an object: of a small text each can take a hundred times
// its size to read.
const maxValues = 128 << 10

// mirrored is what the mirrors of all collections have in common.
type mirrored struct {
	cluster *Cluster
	name    string
}

func (m mirrored) asking() {}

func (m mirrored) failed(err error) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if (c.trouble[m.name] == "") != (text == "") {
		c.options.Log.Debug("following the cluster", "resource", m.name, "error", text)
	}
	c.trouble[m.name] = text
}

// collected is the mirror of a collection whose objects are in the set.
type collected struct {
	mirrored
	resource resource
	before   definition // that was known when the list was asked for
}

// begin notes under which definition a list is asked for.
func (m *collected) begin() {
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	m.before = m.cluster.defines(m.name)
}

// await waits, though not for long, until one knows which definitions there are: what is
// listed before is listed again.
func (m *collected) await(ctx context.Context) {
	m.cluster.mu.Lock()
	defined := m.cluster.defined
	m.cluster.mu.Unlock()
	timer := time.NewTimer(lastRetry)
	defer timer.Stop()
	select {
	case <-defined:
	case <-timer.C:
	case <-ctx.Done():
	}
	m.begin()
}

func (m *collected) listed(all []object, version string) {
	type sized struct {
		crds.Object
		size int
	}
	read := make([]sized, 0, len(all))
	for i, o := range all {
		object, size := m.read(o)
		read = append(read, sized{object, size})
		all[i] = nil // as it was told it can be large
	}
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.replica.kind(m.name)
	under := c.defines(m.name)
	if under.uid != m.before.uid { // whose objects these are cannot be told
		under = definition{}
		c.restart(m.name)
	}
	k.list(parseVersion(version), under)
	for _, o := range read {
		k.put(o.Object, o.size)
	}
	k.heard = c.options.Now()
	c.tell()
}

func (m *collected) changed(o object) {
	read, size := m.read(o)
	m.update(func(k *collection) { k.put(read, size) })
}

func (m *collected) removed(o object) {
	m.update(func(k *collection) {
		k.drop(key{o.GetNamespace(), o.GetName()})
	})
}

func (m *collected) update(do func(*collection)) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.replica.kind(m.name); k.found != nil {
		do(k)
		k.heard = c.options.Now()
	}
	c.tell()
}

func (m *collected) advanced(version string) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.replica.kind(m.name); k.found != nil {
		k.told, k.heard = max(k.told, parseVersion(version)), c.options.Now()
	}
}

// failed notices when the API server does not know the collection any more.
func (m *collected) failed(err error) {
	m.mirrored.failed(err)
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.replica.kind(m.name); unserved(err) && !k.unserved {
		k.unfind()
		k.unserved = true
		c.tell()
	}
}

// read decodes an object, and tells its size. One that cannot be decoded is malformed, and
// never left out.
func (m *collected) read(o object) (crds.Object, int) {
	o.SetManagedFields(nil)
	o.SetAnnotations(nil) // nobody reads them, and they must not make it too large to be read
	raw, err := rawOf(o)
	if err != nil {
		return stubOf(m.resource, o, "cannot be read: "+err.Error()), 0
	}
	if values(raw) > maxValues {
		return stubOf(m.resource, o, "has more values than are read"), len(raw)
	}
	read, err := decodeOne(trimmed(raw, m.resource), m.resource)
	if err != nil {
		return stubOf(m.resource, o, "cannot be read: "+err.Error()), len(raw)
	}
	return read, len(raw)
}

// values counts, from above, the values of JSON.
func values(text []byte) int {
	n := 0
	for _, c := range text {
		if c == '{' || c == '[' || c == ',' {
			n++
		}
	}
	return n
}

// rawField is where what was reduced keeps itself, as JSON.
const rawField = "\x00raw"

func rawOf(o object) ([]byte, error) {
	if u, ok := o.(*unstructured.Unstructured); ok {
		if raw, ok := u.Object[rawField].(string); ok {
			return []byte(raw), nil
		}
	}
	return json.Marshal(o)
}

// reduce drops what nobody reads of an object in a long list that is streamed, and keeps the
// rest as text: as values it takes many times the room.
func reduce(o object) error {
	o.SetManagedFields(nil)
	o.SetAnnotations(nil)
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	delete(u.Object, "status")
	raw, err := json.Marshal(u)
	if err != nil {
		return err
	}
	u.Object = map[string]any{"apiVersion": u.GetAPIVersion(), "kind": u.GetKind(), "metadata": u.Object["metadata"], rawField: string(raw)}
	return nil
}

// trimmed writes the kind of an object of metadata, which is that of its resource.
func trimmed(raw []byte, r resource) []byte {
	if r.kind != crds.KindNamespace {
		return raw
	}
	var metadata struct {
		Metadata json.RawMessage `json:"metadata"`
	}
	if json.Unmarshal(raw, &metadata) != nil {
		return raw
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": r.kind, "metadata": metadata.Metadata})
	if err != nil {
		return raw
	}
	return text
}

// stubOf is an object of which nothing is known but that it is there, and why.
func stubOf(r resource, o object, why string) crds.Object {
	return stubFor(r.GroupVersion().String(), r.kind, o.GetNamespace(), o.GetName(), why)
}

// stub is what is kept of an object whose namespace holds too much.
func stub(o crds.Object) crds.Object {
	return stubFor(o.APIVersion, o.Kind, o.Namespace, o.Name, "its namespace holds too much")
}

func stubFor(apiVersion, kind, namespace, name, why string) crds.Object {
	metadata := map[string]string{"name": name}
	if namespace != "" {
		metadata["namespace"] = namespace
	}
	// No spec and no labels are a text: read back from the kept copy it is malformed too.
	manifest := map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": metadata, "spec": why}
	if kind == crds.KindNamespace {
		delete(manifest, "spec")
		metadata["labels"] = why
	}
	raw, _ := json.Marshal(manifest) // strings can be written
	o := crds.Object{APIVersion: apiVersion, Kind: kind, Namespace: namespace, Name: name, Source: clusterSource, Raw: raw}
	if decoded, err := crds.Decode(raw, clusterSource); err == nil && len(decoded) == 1 {
		o = decoded[0]
	}
	o.Problems = append(o.Problems, crds.Problem{Message: why})
	return o
}

// definitionsMirror is the mirror of the CustomResourceDefinitions.
type definitionsMirror struct{ mirrored }

func (m *definitionsMirror) await(context.Context) {}

func (m *definitionsMirror) listed(all []object, _ string) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replica.definitions = make(map[string]definition)
	c.missed, c.relisting = false, false
	for _, o := range all {
		m.note(o)
	}
	for _, k := range c.replica.kinds {
		if _, ok := c.replica.definitions[k.name()]; !ok {
			m.replaced(k, "")
		}
	}
	c.watched(true)
	m.heard()
}

func (m *definitionsMirror) changed(o object) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	m.note(o)
	m.heard()
}

func (m *definitionsMirror) removed(o object) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.replica.definitions, o.GetName())
	if k := c.replica.kind(o.GetName()); k != nil {
		m.replaced(k, "")
	}
	m.heard()
}

func (m *definitionsMirror) advanced(string) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = c.options.Now()
}

func (m *definitionsMirror) heard() {
	m.cluster.told = m.cluster.options.Now()
	m.cluster.tell()
}

// note keeps what counts of a definition, and has a kind that was not there asked for at once.
func (m *definitionsMirror) note(o object) {
	k := m.cluster.replica.kind(o.GetName())
	if k == nil || m.cluster.replica.definitions == nil {
		return
	}
	m.cluster.replica.definitions[o.GetName()] = definition{string(o.GetUID()), o.GetDeletionTimestamp() != nil}
	m.replaced(k, string(o.GetUID()))
	if k.unserved {
		m.cluster.restart(k.name())
	}
}

// replaced has a kind listed anew that was listed under another definition than there is
// now, and asked for again what its definition was confirmed to be.
func (m *definitionsMirror) replaced(k *collection, uid string) {
	k.confirmed = confirmation{}
	if k.kind != crds.KindNamespace && k.found != nil && k.under != uid {
		k.unfind()
		m.cluster.restart(k.name())
	}
}

// failed has no deletion believed until all definitions were listed again.
func (m *definitionsMirror) failed(err error) {
	m.mirrored.failed(err)
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.missed, c.relisting = true, false
		c.watched(false)
	case c.missed && !c.relisting:
		c.relisting = true
		c.restart(m.name)
	case !c.missed:
		c.watched(c.replica.definitions != nil)
	}
	c.tell()
}

// asking: the definitions are not watched until that is answered.
func (m *definitionsMirror) asking() {
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	m.cluster.watched(false)
}

// defines is the definition of a kind, as far as those that are known are those of now.
func (c *Cluster) defines(name string) definition {
	if !c.replica.current {
		return definition{}
	}
	return c.replica.definitions[name]
}

// watched tells who waits for it whether the definitions are those of now.
func (c *Cluster) watched(current bool) {
	if c.replica.current = current; !current {
		select {
		case <-c.defined:
			c.defined = make(chan struct{})
		default:
		}
		return
	}
	select {
	case <-c.defined:
	default:
		close(c.defined)
	}
}
