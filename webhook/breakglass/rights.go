package breakglass

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/horkos/horkos/webhook/admission"
)

// What a user needs the right to, in the whole cluster.
const (
	verb     = "breakglass"
	group    = "horkos.dev"
	version  = "v1alpha1"
	resource = "clusterattestationpolicies"
)

var accessReviews = schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "subjectaccessreviews"}

// AccessReviews asks the API server for Rights. It keeps no answer: a right that is taken
// away is gone.
type AccessReviews struct {
	Client func() (dynamic.Interface, error)
}

// May tells whether a user may break the glass.
func (a *AccessReviews) May(ctx context.Context, user admission.User) (bool, error) {
	if user.Username == "" {
		return false, errors.New("the review names no user")
	}
	client, err := a.Client()
	if err != nil {
		return false, fmt.Errorf("ask for the user's rights: %w", err)
	}
	answer, err := client.Resource(accessReviews).Create(ctx, accessReview(user), metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask for the user's rights: %w", err)
	}
	allowed, found, err := unstructured.NestedBool(answer.Object, "status", "allowed")
	if err != nil || !found {
		return false, errors.New("ask for the user's rights: the answer says nothing")
	}
	denied, _, err := unstructured.NestedBool(answer.Object, "status", "denied")
	if err != nil {
		return false, errors.New("ask for the user's rights: the answer cannot be read")
	}
	if trouble, _, _ := unstructured.NestedString(answer.Object, "status", "evaluationError"); !allowed && trouble != "" {
		return false, fmt.Errorf("ask for the user's rights: %.200s", trouble)
	}
	return allowed && !denied, nil
}

func accessReview(user admission.User) *unstructured.Unstructured {
	extra := make(map[string]any, len(user.Extra))
	for key, values := range user.Extra {
		extra[key] = list(values)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1",
		"kind":       "SubjectAccessReview",
		"spec": map[string]any{
			"user": user.Username, "uid": user.UID, "groups": list(user.Groups), "extra": extra,
			"resourceAttributes": map[string]any{"verb": verb, "group": group, "version": version, "resource": resource},
		},
	}}
}

func list(texts []string) []any {
	all := make([]any, len(texts))
	for i, text := range texts {
		all[i] = text
	}
	return all
}
