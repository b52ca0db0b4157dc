package admission

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// object is what is read of an object: one shape for every kind, of which each kind has the
// pod in another place.
type object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       spec     `json:"spec"`
}

type metadata struct {
	Name         string      `json:"name"`
	GenerateName string      `json:"generateName"`
	Namespace    string      `json:"namespace"`
	UID          string      `json:"uid"`
	Annotations  annotations `json:"annotations"`
}

// annotations are those that are read; there may be any number of others.
type annotations struct {
	Mirror     *string `json:"kubernetes.io/config.mirror"` // marks the pod by which a kubelet tells of a static pod
	Breakglass string  `json:"kritis.grafeas.io/breakglass"`
}

type spec struct {
	podSpec              // of a pod
	Template    template `json:"template"` // of what makes pods
	JobTemplate struct {
		Spec struct {
			Template template `json:"template"`
		} `json:"spec"`
	} `json:"jobTemplate"` // of what makes jobs
}

type template struct {
	Spec podSpec `json:"spec"`
}

type podSpec struct {
	NodeName            string     `json:"nodeName"`
	InitContainers      containers `json:"initContainers"`
	Containers          containers `json:"containers"`
	EphemeralContainers containers `json:"ephemeralContainers"`
	Volumes             volumes    `json:"volumes"`
}

type containers []container

type container struct {
	Image string `json:"image"`
}

type volume struct {
	Image *struct {
		Reference string `json:"reference"`
	} `json:"image"`
}

type volumes []volume

// UnmarshalJSON reads a list of bounded length.
func (c *containers) UnmarshalJSON(data []byte) error {
	return elements(data, func(element []byte) error {
		*c = append(*c, container{})
		return strictly(element, &(*c)[len(*c)-1])
	})
}

// UnmarshalJSON reads a list of bounded length.
func (v *volumes) UnmarshalJSON(data []byte) error {
	return elements(data, func(element []byte) error {
		*v = append(*v, volume{})
		return strictly(element, &(*v)[len(*v)-1])
	})
}

// maxList bounds the containers, and the volumes, of a pod: of the few bytes of an empty one
// many times as much memory would be made.
const maxList = 1024

// elements calls visit for each element of a list.
func elements(data []byte, visit func([]byte) error) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	switch begin, err := dec.Token(); {
	case err != nil:
		return err
	case begin == nil:
		return nil // null is no list
	case begin != json.Delim('['):
		return errors.New("containers and volumes are lists")
	}
	for n := 0; dec.More(); n++ {
		if n == maxList {
			return fmt.Errorf("more than %d containers or volumes", maxList)
		}
		var element json.RawMessage
		if err := dec.Decode(&element); err != nil {
			return err
		}
		if err := visit(element); err != nil {
			return err
		}
	}
	return nil
}

// place is where an object of a kind has its pod.
type place func(*spec) *podSpec

func ofPod(s *spec) *podSpec         { return &s.podSpec }
func ofTemplate(s *spec) *podSpec    { return &s.Template.Spec }
func ofJobTemplate(s *spec) *podSpec { return &s.JobTemplate.Spec.Template.Spec }

// workload gives the kind that a resource holds and where it has its pod; false where the
// resource is none that is reviewed.
func workload(r Resource) (Kind, place, bool) {
	kind := func(name string) Kind { return Kind{Group: r.Group, Version: r.Version, Kind: name} }
	switch r {
	case Resource{"", "v1", "pods"}:
		return kind("Pod"), ofPod, true
	case Resource{"", "v1", "replicationcontrollers"}:
		return kind("ReplicationController"), ofTemplate, true
	case Resource{"apps", "v1", "deployments"}:
		return kind("Deployment"), ofTemplate, true
	case Resource{"apps", "v1", "replicasets"}:
		return kind("ReplicaSet"), ofTemplate, true
	case Resource{"apps", "v1", "statefulsets"}:
		return kind("StatefulSet"), ofTemplate, true
	case Resource{"apps", "v1", "daemonsets"}:
		return kind("DaemonSet"), ofTemplate, true
	case Resource{"batch", "v1", "jobs"}:
		return kind("Job"), ofTemplate, true
	case Resource{"batch", "v1", "cronjobs"}:
		return kind("CronJob"), ofJobTemplate, true
	}
	return Kind{}, nil, false
}

// images are those of a pod as written, by the field they stand in: init containers,
// containers, ephemeral containers, image volumes.
type images [4][]string

// read reads an object of a kind.
func read(kind Kind, at place, data []byte) (*object, images, error) {
	if len(data) == 0 || string(data) == "null" {
		return nil, images{}, errors.New("there is no object")
	}
	var o object
	if err := strictly(data, &o); err != nil {
		return nil, images{}, err
	}
	if o.APIVersion != kind.APIVersion() || o.Kind != kind.Kind {
		return nil, images{}, fmt.Errorf("the object is a %.80q of %.80q: want %s of %s", o.Kind, o.APIVersion, kind.Kind, kind.APIVersion())
	}
	pod := at(&o.Spec)
	var all images
	for i, list := range []containers{pod.InitContainers, pod.Containers, pod.EphemeralContainers} {
		for _, c := range list {
			all[i] = append(all[i], c.Image)
		}
	}
	for _, v := range pod.Volumes {
		// A template may leave the reference to whoever changes the pod, which is reviewed then.
		if v.Image != nil && (v.Image.Reference != "" || pod == &o.Spec.podSpec) {
			all[3] = append(all[3], v.Image.Reference)
		}
	}
	return &o, all, nil
}

// once are all images in the order of the pod, each once.
func (i *images) once() []string {
	var all []string
	seen := make(map[string]bool)
	for _, list := range i {
		for _, name := range list {
			if !seen[name] {
				seen[name] = true
				all = append(all, name)
			}
		}
	}
	return all
}

// same tells whether an update leaves what is decided on as it is. A decision comes of the
// namespace, which an update cannot change and both objects are held to, and of the images
// as written. Policies read nothing else of a request: no annotation, owner, node or number
// of replicas. (What they read of the cluster, such as the labels of the namespace, may
// have changed since; the pods that come of the object are decided on then.)
func (i *images) same(old *images) bool {
	for field := range i {
		a, b := slices.Sorted(slices.Values(i[field])), slices.Sorted(slices.Values(old[field]))
		if !slices.Equal(a, b) {
			return false
		}
	}
	return true
}

// since compares an update of an object to this one, with these images, to what was there.
// Same: it leaves what is decided on as it is; what was passed as a node's mirror is decided on
// once it is one no more. Wrote: it writes the annotation of breakglass. Without the old object
// there is nothing to compare with: neither.
func (o *object) since(kind Kind, at place, namespace string, all *images, old json.RawMessage) (same, wrote bool, err error) {
	if len(old) == 0 || string(old) == "null" {
		return false, false, nil
	}
	before, images, err := read(kind, at, old)
	if err != nil {
		return false, false, fmt.Errorf("the old object: %w", err)
	}
	was, is := &before.Metadata.Annotations, &o.Metadata.Annotations
	noMore := was.Mirror != nil && is.Mirror == nil
	return all.same(&images) && !noMore, was.Breakglass != is.Breakglass, before.in(namespace)
}

// in holds an object to the namespace of the request.
func (o *object) in(namespace string) error {
	if ns := o.Metadata.Namespace; ns != "" && ns != namespace {
		return fmt.Errorf("the object says that its namespace is %.80q, and the request is about %s", ns, namespace)
	}
	return nil
}
