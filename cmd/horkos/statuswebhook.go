package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/horkos/horkos/apiserver"
)

// Names of daemonset/webhook.
const (
	webhookConfiguration = "horkos"
	webhookDeployment    = "horkos-webhook"
)

// webhookNames are those of the webhooks in the configuration.
var webhookNames = []string{"kritis-validation-hook.grafeas.io", "kritis-validation-hook-deployments.grafeas.io"}

// webhookState is whether the admission webhook is asked, and answers.
type webhookState struct {
	Known     bool     `json:"known"` // its objects may be read
	Installed bool     `json:"installed"`
	DryRun    bool     `json:"dryRun"` // it lets everything through
	Replicas  int64    `json:"replicas"`
	Ready     int64    `json:"readyReplicas"`
	Problems  []string `json:"problems"`
}

// readWebhook looks at the webhook's configuration, and at its Deployment in the namespace.
func readWebhook(ctx context.Context, clients apiserver.Clients, namespace string) (webhookState, error) {
	configurations := schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
	deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	configuration, err := clients.Objects.Resource(configurations).Get(ctx, webhookConfiguration, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return webhookState{}, fmt.Errorf("read the ValidatingWebhookConfiguration %s: %w", webhookConfiguration, err)
	}
	if apierrors.IsForbidden(err) {
		return webhookState{Problems: []string{}}, nil
	}
	if err != nil {
		configuration = nil
	}
	deployment, err := clients.Objects.Resource(deployments).Namespace(namespace).Get(ctx, webhookDeployment, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return webhookState{Problems: []string{}}, nil
	case apierrors.IsNotFound(err):
		deployment = nil
	case err != nil:
		return webhookState{}, fmt.Errorf("read the Deployment %s/%s: %w", namespace, webhookDeployment, err)
	}
	return webhookOf(configuration, deployment), nil
}

// webhookOf is the state by the objects; nil: there is none.
func webhookOf(configuration, deployment *unstructured.Unstructured) webhookState {
	s := webhookState{Known: true, Installed: configuration != nil || deployment != nil, Problems: []string{}}
	if !s.Installed {
		return s
	}
	if deployment == nil {
		s.Problems = append(s.Problems, "there is no Deployment "+webhookDeployment+": what it is asked about is refused")
	} else {
		s.readDeployment(deployment)
	}
	if configuration == nil {
		s.Problems = append(s.Problems, "there is no ValidatingWebhookConfiguration "+webhookConfiguration+", so it is never asked: kubectl apply --server-side -f daemonset/webhook/configuration.yaml")
	} else {
		s.readConfiguration(configuration)
	}
	return s
}

func (s *webhookState) readDeployment(u *unstructured.Unstructured) {
	s.Replicas, _, _ = unstructured.NestedInt64(u.Object, "spec", "replicas")
	s.Ready, _, _ = unstructured.NestedInt64(u.Object, "status", "readyReplicas")
	containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
	for _, c := range containers {
		container, _ := c.(map[string]any)
		args, _, _ := unstructured.NestedStringSlice(container, "args")
		s.DryRun = s.DryRun || slices.Contains(args, "--dry-run") || slices.Contains(args, "--dry-run=true")
	}
	switch {
	case s.Ready == 0:
		s.Problems = append(s.Problems, "no replica is ready: what it is asked about is refused")
	case s.Ready < s.Replicas:
		s.Problems = append(s.Problems, fmt.Sprintf("%d of %s ready", s.Ready, plural(int(s.Replicas), "replica")))
	}
}

// readConfiguration looks for what would have nobody ask it, or nobody believe it.
func (s *webhookState) readConfiguration(u *unstructured.Unstructured) {
	webhooks, _, _ := unstructured.NestedSlice(u.Object, "webhooks")
	found := make(map[string]bool)
	for _, w := range webhooks {
		webhook, _ := w.(map[string]any)
		name, _, _ := unstructured.NestedString(webhook, "name")
		if !slices.Contains(webhookNames, name) {
			continue
		}
		found[name] = true
		if policy, _, _ := unstructured.NestedString(webhook, "failurePolicy"); policy != "Fail" {
			s.Problems = append(s.Problems, fmt.Sprintf("%s has failurePolicy %.20q: while it is away everything passes", name, policy))
		}
		if bundle, _, _ := unstructured.NestedString(webhook, "clientConfig", "caBundle"); bundle == "" {
			s.Problems = append(s.Problems, name+" has no caBundle: the API server believes nobody, and refuses")
		}
	}
	for _, name := range webhookNames {
		if !found[name] {
			s.Problems = append(s.Problems, name+" is not in the ValidatingWebhookConfiguration "+webhookConfiguration+": it is never asked")
		}
	}
}

// text tells it to people.
func (s webhookState) text() string {
	switch {
	case !s.Known:
		return "not known: you may not read the ValidatingWebhookConfiguration " + webhookConfiguration + " and its Deployment"
	case !s.Installed:
		return "not installed: nodes alone decide"
	case len(s.Problems) > 0:
		return strings.Join(s.Problems, "; ")
	case s.DryRun:
		return fmt.Sprintf("%d of %d ready, a dry run: it lets everything through", s.Ready, s.Replicas)
	}
	return fmt.Sprintf("%d of %d ready", s.Ready, s.Replicas)
}

// again looks at the webhook again. What cannot be read now is as it was.
func (s webhookState) again(ctx context.Context, clients apiserver.Clients, namespace string) webhookState {
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	now, err := readWebhook(ctx, clients, namespace)
	if err != nil {
		return s // that the API server does not answer is told by the watches
	}
	return now
}
