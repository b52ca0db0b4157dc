package daemonset

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	admission "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// documents reads a file of the webhook's manifests, each strictly, by kind.
func documents(t *testing.T, file string, into map[string]any) {
	t.Helper()
	text, err := os.ReadFile("webhook/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var head struct{ Kind string }
		if err := yaml.Unmarshal(document, &head); err != nil {
			t.Fatal(err)
		}
		if object := into[head.Kind]; object != nil {
			if err := yaml.UnmarshalStrict(document, object); err != nil {
				t.Fatalf("%s: %v", head.Kind, err)
			}
			delete(into, head.Kind)
		}
	}
	for kind := range into {
		t.Errorf("%s has no %s", file, kind)
	}
}

func TestTheConfigurationFailsClosedAndCannotHoldUpTheCluster(t *testing.T) {
	var c admission.ValidatingWebhookConfiguration
	documents(t, "configuration.yaml", map[string]any{"ValidatingWebhookConfiguration": &c})
	reviewed := make(map[string]bool)
	var names []string
	for _, w := range c.Webhooks {
		names = append(names, w.Name)
		switch {
		case w.FailurePolicy == nil || *w.FailurePolicy != admission.Fail:
			t.Errorf("%s opens while the webhook is away", w.Name)
		case w.SideEffects == nil || *w.SideEffects != admission.SideEffectClassNoneOnDryRun:
			t.Errorf("%s: side effects", w.Name)
		case w.MatchPolicy == nil || *w.MatchPolicy != admission.Equivalent:
			t.Errorf("%s: another version of a kind goes past it", w.Name)
		case w.TimeoutSeconds == nil || *w.TimeoutSeconds < 5 || *w.TimeoutSeconds > 15:
			t.Errorf("%s: timeout", w.Name)
		case w.ObjectSelector != nil:
			t.Errorf("%s: labels, which authors of pods write, go past it", w.Name)
		case w.ClientConfig.CABundle != nil || w.ClientConfig.Service == nil || w.ClientConfig.Service.Name != "horkos-webhook" || w.ClientConfig.Service.Namespace != namespace:
			t.Errorf("%s: client config %+v", w.Name, w.ClientConfig)
		case !slices.Equal(w.AdmissionReviewVersions, []string{"v1"}):
			t.Errorf("%s: versions %q", w.Name, w.AdmissionReviewVersions)
		case len(w.MatchConditions) != 1 || !strings.HasPrefix(w.MatchConditions[0].Expression, "request.operation != 'UPDATE' || "):
			t.Errorf("%s: what is created may go past it: %+v", w.Name, w.MatchConditions)
		}
		expressions := w.NamespaceSelector.MatchExpressions
		if len(w.NamespaceSelector.MatchLabels) > 0 || len(expressions) != 1 || expressions[0].Key != core.LabelMetadataName ||
			expressions[0].Operator != "NotIn" || !slices.Equal(expressions[0].Values, []string{"kube-system", namespace}) {
			t.Errorf("%s: namespaces %+v", w.Name, w.NamespaceSelector)
		}
		for _, r := range w.Rules {
			if !slices.Equal(r.Operations, []admission.OperationType{admission.Create, admission.Update}) {
				t.Errorf("%s: operations %q", w.Name, r.Operations)
			}
			for _, resource := range r.Resources {
				reviewed[r.APIGroups[0]+"/"+resource] = true
			}
		}
	}
	if !slices.Equal(names, []string{"kritis-validation-hook.grafeas.io", "kritis-validation-hook-deployments.grafeas.io"}) {
		t.Errorf("the names are %q", names)
	}
	for _, resource := range []string{"/pods", "/pods/ephemeralcontainers", "apps/deployments", "apps/replicasets", "apps/statefulsets", "apps/daemonsets", "batch/jobs", "batch/cronjobs", "/replicationcontrollers"} {
		if !reviewed[resource] {
			t.Errorf("%s is not reviewed", resource)
		}
		delete(reviewed, resource)
	}
	for resource := range reviewed {
		t.Errorf("%s is reviewed, of which the webhook knows nothing", resource)
	}
}

func TestTwoReplicasServeAndOneIsAlwaysLeft(t *testing.T) {
	var d apps.Deployment
	var b policy.PodDisruptionBudget
	var s core.Service
	documents(t, "webhook.yaml", map[string]any{"Deployment": &d, "PodDisruptionBudget": &b, "Service": &s})
	if d.Spec.Replicas == nil || *d.Spec.Replicas != 2 || d.Spec.Strategy.RollingUpdate == nil || d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
		t.Errorf("replicas %v, strategy %+v", d.Spec.Replicas, d.Spec.Strategy)
	}
	labels := d.Spec.Template.Labels
	for name, selector := range map[string]map[string]string{"budget": b.Spec.Selector.MatchLabels, "Service": s.Spec.Selector, "Deployment": d.Spec.Selector.MatchLabels} {
		for key, value := range selector {
			if labels[key] != value {
				t.Errorf("the %s selects %v, and the pods are %v", name, selector, labels)
			}
		}
	}
	if b.Spec.MinAvailable.IntValue() != 1 || b.Spec.UnhealthyPodEvictionPolicy == nil || *b.Spec.UnhealthyPodEvictionPolicy != policy.AlwaysAllow {
		t.Errorf("budget %+v", b.Spec)
	}
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	for name, probe := range map[string]*core.Probe{"/readyz": c.ReadinessProbe, "/healthz": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != name || probe.HTTPGet.Port.StrVal != "health" {
			t.Errorf("the probe of %s is %+v", name, probe)
		}
	}
	// What goes on after the end is told: the delay, and a minute for what is in flight.
	if grace := pod.TerminationGracePeriodSeconds; grace == nil || time.Duration(*grace)*time.Second < 10*time.Second+time.Minute {
		t.Errorf("it has %v seconds to end", grace)
	}
	limit := c.Resources.Limits.Memory()
	at := slices.IndexFunc(c.Env, func(e core.EnvVar) bool { return e.Name == "GOMEMLIMIT" })
	if at < 0 {
		t.Fatal("no GOMEMLIMIT")
	}
	goal := resource.MustParse(strings.TrimSuffix(c.Env[at].Value, "B"))
	if limit.IsZero() || goal.Value() > limit.Value()*3/4 {
		t.Errorf("GOMEMLIMIT %s leaves too little of %s", goal.String(), limit.String())
	}
}
