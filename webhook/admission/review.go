package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	strictjson "sigs.k8s.io/json"
)

const (
	reviewVersion = "admission.k8s.io/v1"
	reviewKind    = "AdmissionReview"

	maxUID  = 128       // bytes of a review's uid, which the answer repeats
	maxUser = 256 << 10 // bytes of what is said of the user
)

// Review is one question of the API server, as far as it is read here.
type Review struct {
	UID       string
	Operation string // CREATE, UPDATE, DELETE or CONNECT

	// Resource and Kind are those of the request; Kind is that of the object it carries.
	Resource    Resource
	SubResource string
	Kind        Kind

	Namespace string // of the request; what the object says must be the same
	Name      string // of the object, or what it begins with where the API server makes one
	ObjectUID string
	User      User

	// DryRun: nothing will come of the request, and nothing may come of the review.
	DryRun bool

	// Breakglass is the object's annotation kritis.grafeas.io/breakglass, and Images are its
	// images in the order of the pod, each once. Whoever wrote the object wrote them.
	Breakglass string
	Images     []string

	// Wrote: the request itself wrote that annotation. On an update it may have been there, by
	// somebody who has no right to it.
	Wrote bool

	// Denied are those of the images that would be denied, where breakglass is asked.
	Denied []Denied
}

// Resource names a resource of the API.
type Resource struct {
	Group    string `json:"group"`
	Version  string `json:"version"`
	Resource string `json:"resource"`
}

func (r Resource) String() string { return r.Group + "/" + r.Version + " " + r.Resource }

// Kind names a kind of the API.
type Kind struct {
	Group   string `json:"group"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
}

// APIVersion is group and version as an object writes them.
func (k Kind) APIVersion() string {
	if k.Group == "" {
		return k.Version
	}
	return k.Group + "/" + k.Version
}

// User is who asks, as the API server knows.
type User struct {
	Username string              `json:"username"`
	UID      string              `json:"uid"`
	Groups   []string            `json:"groups"`
	Extra    map[string][]string `json:"extra"`
}

// envelope is an AdmissionReview as it is sent.
type envelope struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Request    *request `json:"request"`
}

type request struct {
	UID         string          `json:"uid"`
	Operation   string          `json:"operation"`
	Resource    Resource        `json:"resource"`
	SubResource string          `json:"subResource"`
	Kind        Kind            `json:"kind"`
	Namespace   string          `json:"namespace"`
	Name        string          `json:"name"`
	UserInfo    json.RawMessage `json:"userInfo"`
	DryRun      bool            `json:"dryRun"`
	Object      json.RawMessage `json:"object"`
	OldObject   json.RawMessage `json:"oldObject"`
}

var errNoUID = errors.New("want one AdmissionReview of " + reviewVersion + " whose request has a uid")

// decode reads a review. Without a uid there is nothing to answer to: errNoUID, and no
// request. Any other error comes with the request, as far as it was read.
func decode(body []byte) (*request, error) {
	var e envelope
	err := strictly(body, &e)
	if e.Request == nil || e.Request.UID == "" || len(e.Request.UID) > maxUID {
		return nil, errNoUID
	}
	switch {
	case err != nil:
		return e.Request, err
	case e.APIVersion != reviewVersion || e.Kind != reviewKind:
		return e.Request, fmt.Errorf("it is a %.80q of %.80q: want %s of %s", e.Kind, e.APIVersion, reviewKind, reviewVersion)
	}
	return e.Request, nil
}

// user reads who asks.
func (r *request) user() (u User, err error) {
	if len(r.UserInfo) > maxUser {
		return u, fmt.Errorf("more than %d bytes are said of the user", maxUser)
	}
	if len(r.UserInfo) > 0 {
		err = strictly(r.UserInfo, &u)
	}
	return u, err
}

// strictly reads JSON as the API server does, keys in their own letters only, and refuses
// one that stands twice: of two readers each could take another.
func strictly(data []byte, into any) error {
	duplicates, err := strictjson.UnmarshalStrict(data, into, strictjson.DisallowDuplicateFields)
	if err != nil {
		return err
	}
	return errors.Join(duplicates[:min(len(duplicates), 3)]...)
}

// label tells whether a text is a DNS-1123 label, as the name of a namespace is: no policy
// could speak of another, and the default action would decide.
func label(s string) bool {
	const letters, dash = "abcdefghijklmnopqrstuvwxyz0123456789", "-"
	return s != "" && len(s) <= 63 && strings.Trim(s, letters+dash) == "" &&
		!strings.HasPrefix(s, dash) && !strings.HasSuffix(s, dash)
}
