package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/daemonset"
)

// Names of daemonset/webhook.
const (
	webhookConfiguration = "horkos"
	webhookDeployment    = "horkos-webhook"
)

// webhookNames are those of the webhooks in the configuration.
var webhookNames = []string{"kritis-validation-hook.grafeas.io", "kritis-validation-hook-deployments.grafeas.io"}

// namedAtMost is how many namespaces a text names.
const namedAtMost = 20

// webhookState is whether the admission webhook is asked, and answers.
type webhookState struct {
	Known     bool  `json:"known"` // its objects may be read
	Installed bool  `json:"installed"`
	DryRun    bool  `json:"dryRun"` // it lets everything through
	Replicas  int64 `json:"replicas"`
	Ready     int64 `json:"readyReplicas"`
	// LeftOut are namespaces that it is not asked about, but for those that the manifest and its
	// own leave out. Selected: which ones it is asked about is told by what cannot be listed.
	LeftOut  []string `json:"namespacesLeftOut"`
	Selected bool     `json:"namespacesSelected"`
	Problems []string `json:"problems"`
}

// webhookObjects are those that tell of it.
type webhookObjects struct {
	namespace                 string                     // of the Deployment
	configuration, deployment *unstructured.Unstructured // nil: there is none
	forbidden                 bool                       // one of them may not be read
}

// readWebhook looks at the webhook's configuration, and at its Deployment in the namespace.
func readWebhook(ctx context.Context, clients apiserver.Clients, namespace string) (webhookObjects, error) {
	configurations := schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
	deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	o := webhookObjects{namespace: namespace}
	configuration, err := clients.Objects.Resource(configurations).Get(ctx, webhookConfiguration, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		o.forbidden = true
	case err == nil:
		o.configuration = configuration
	case !apierrors.IsNotFound(err):
		return webhookObjects{}, fmt.Errorf("read the ValidatingWebhookConfiguration %s: %w", webhookConfiguration, err)
	}
	deployment, err := clients.Objects.Resource(deployments).Namespace(namespace).Get(ctx, webhookDeployment, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		o.forbidden = true
	case err == nil:
		o.deployment = deployment
	case !apierrors.IsNotFound(err):
		return webhookObjects{}, fmt.Errorf("read the Deployment %s/%s: %w", namespace, webhookDeployment, err)
	}
	return o, nil
}

// state is what they tell.
func (o webhookObjects) state() webhookState {
	s := webhookState{Known: !o.forbidden, LeftOut: []string{}, Problems: []string{}}
	if o.forbidden || (o.configuration == nil && o.deployment == nil) {
		return s
	}
	s.Installed = true
	if o.deployment == nil {
		s.Problems = append(s.Problems, "there is no Deployment "+webhookDeployment+": what it is asked about is refused")
	} else {
		s.readDeployment(o.deployment)
	}
	if o.configuration == nil {
		s.Problems = append(s.Problems, "there is no ValidatingWebhookConfiguration "+webhookConfiguration+", so it is never asked: kubectl apply --server-side -f daemonset/webhook/configuration.yaml")
	} else {
		s.readConfiguration(o.configuration, o.namespace)
	}
	return s
}

func (s *webhookState) readDeployment(u *unstructured.Unstructured) {
	s.Replicas, _, _ = unstructured.NestedInt64(u.Object, "spec", "replicas")
	s.Ready, _, _ = unstructured.NestedInt64(u.Object, "status", "readyReplicas")
	containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
	for _, c := range containers {
		container, _ := c.(map[string]any)
		command, _, _ := unstructured.NestedStringSlice(container, "command")
		args, _, _ := unstructured.NestedStringSlice(container, "args")
		s.DryRun = s.DryRun || isDryRun(slices.Concat(command, args))
	}
	switch {
	case s.Ready == 0:
		s.Problems = append(s.Problems, "no replica is ready: what it is asked about is refused. To do: "+askForPods(u.GetNamespace())+"; or docs/emergency.md")
	case s.Ready < s.Replicas:
		s.Problems = append(s.Problems, fmt.Sprintf("%d of %s ready", s.Ready, plural(int(s.Replicas), "replica")))
	}
}

// isDryRun reads a command line as horkos webhook does: of flags that are given twice the last counts.
func isDryRun(args []string) (dry bool) {
	for _, arg := range args {
		if arg == "--dry-run" {
			dry = true
		} else if value, ok := strings.CutPrefix(arg, "--dry-run="); ok {
			dry, _ = strconv.ParseBool(value) // one that is none ends the program
		}
	}
	return dry
}

// readConfiguration looks for what would have nobody ask it, or nobody believe it. The namespace
// is the webhook's.
func (s *webhookState) readConfiguration(u *unstructured.Unstructured, namespace string) {
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
		s.readScope(name, webhook)
		s.readService(name, webhook, namespace)
		s.readNamespaces(webhook, namespace)
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

// readScope looks for what keeps the API server from asking one of the webhooks.
func (s *webhookState) readScope(name string, webhook map[string]any) {
	manifest := manifestOf(name)
	rules, _, _ := unstructured.NestedSlice(webhook, "rules")
	switch want, _, _ := unstructured.NestedSlice(manifest, "rules"); {
	case len(rules) == 0:
		s.Problems = append(s.Problems, name+" has no rules: it is never asked")
	case !reflect.DeepEqual(rules, want):
		s.Problems = append(s.Problems, name+" has other rules than the manifest: there may be kinds and operations that it is not asked about")
	}
	for _, part := range []string{"matchLabels", "matchExpressions"} {
		if selector, _, _ := unstructured.NestedFieldNoCopy(webhook, "objectSelector", part); !empty(selector) {
			s.Problems = append(s.Problems, name+" has an objectSelector: whoever sets the labels of an object decides whether it is asked")
			break
		}
	}
	conditions, _, _ := unstructured.NestedSlice(webhook, "matchConditions")
	if want, _, _ := unstructured.NestedSlice(manifest, "matchConditions"); len(conditions) > 0 && !reflect.DeepEqual(conditions, want) {
		s.Problems = append(s.Problems, name+" has matchConditions that the manifest has not: it is asked only where they hold")
	}
}

// readService looks who is called. The namespace is the webhook's.
func (s *webhookState) readService(name string, webhook map[string]any, namespace string) {
	service, found, _ := unstructured.NestedMap(webhook, "clientConfig", "service")
	if found && (service["namespace"] != namespace || service["name"] != webhookDeployment) {
		s.Problems = append(s.Problems, fmt.Sprintf("%s calls the Service %v/%v, which is not the webhook's in namespace %s", name, service["namespace"], service["name"], namespace))
	}
}

// manifestOf is a webhook as daemonset/webhook has it.
func manifestOf(name string) map[string]any {
	var configuration struct{ Webhooks []map[string]any }
	if err := yaml.Unmarshal(daemonset.WebhookConfiguration(), &configuration); err != nil {
		return nil // what is read differs from it then, and that is told
	}
	for _, webhook := range configuration.Webhooks {
		if webhook["name"] == name {
			return webhook
		}
	}
	return nil
}

// empty tells whether a part of a selector selects everything.
func empty(part any) bool {
	switch part := part.(type) {
	case nil:
		return true
	case map[string]any:
		return len(part) == 0
	case []any:
		return len(part) == 0
	}
	return false
}

// readNamespaces reads which namespaces one of the webhooks is not asked about. The form of the
// manifest lists them by name; of any other, that it is there is all that can be said.
func (s *webhookState) readNamespaces(webhook map[string]any, own string) {
	selector, _, _ := unstructured.NestedMap(webhook, "namespaceSelector")
	if !empty(selector["matchLabels"]) {
		s.Selected = true
	}
	expressions, _ := selector["matchExpressions"].([]any)
	for _, e := range expressions {
		expression, _ := e.(map[string]any)
		if expression["key"] != "kubernetes.io/metadata.name" || expression["operator"] != string(metav1.LabelSelectorOpNotIn) {
			s.Selected = true
			continue
		}
		values, _, _ := unstructured.NestedStringSlice(expression, "values")
		for _, v := range values {
			if !slices.Contains([]string{"kube-system", "horkos-system", own}, v) {
				s.LeftOut = append(s.LeftOut, v)
			}
		}
	}
	slices.Sort(s.LeftOut)
	s.LeftOut = slices.Compact(s.LeftOut)
}

// text tells it to people.
func (s webhookState) text() string {
	var all []string
	switch {
	case !s.Known:
		return "not known: you may not read the ValidatingWebhookConfiguration " + webhookConfiguration + " and its Deployment"
	case !s.Installed:
		return "not installed: nodes alone decide"
	case len(s.Problems) > 0:
		all = slices.Clone(s.Problems)
	default:
		all = []string{fmt.Sprintf("%d of %d ready", s.Ready, s.Replicas)}
	}
	if s.DryRun {
		all = append(all, "a dry run: it lets everything through")
	}
	if s.Selected {
		all = append(all, "asked only about namespaces that its namespaceSelector matches")
	}
	if named := s.LeftOut; len(named) > namedAtMost {
		all = append(all, fmt.Sprintf("not asked about namespaces: %s and %d more", strings.Join(named[:namedAtMost], ", "), len(named)-namedAtMost))
	} else if len(named) > 0 {
		all = append(all, "not asked about namespaces: "+strings.Join(named, ", "))
	}
	return strings.Join(all, "; ")
}

// again looks at the webhook again. What cannot be read now is as it was.
func (s webhookState) again(ctx context.Context, clients apiserver.Clients, namespace string) webhookState {
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	now, err := readWebhook(ctx, clients, namespace)
	if err != nil {
		return s // that the API server does not answer is told by the watches
	}
	return now.state()
}
