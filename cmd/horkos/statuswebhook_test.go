package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	configurationPath = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/horkos"
	deploymentPath    = "/apis/apps/v1/namespaces/elsewhere/deployments/horkos-webhook"
)

func configurationOf(policy, bundle string, names ...string) string {
	var webhooks []map[string]any
	for _, name := range names {
		webhook := manifestOf(name)
		webhook["failurePolicy"], webhook["objectSelector"], webhook["namespaceSelector"] = policy, map[string]any{}, map[string]any{}
		webhook["clientConfig"] = map[string]any{"caBundle": bundle}
		webhooks = append(webhooks, webhook)
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
		"metadata": map[string]any{"name": "horkos"}, "webhooks": webhooks})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func deploymentOf(replicas, ready int, args string) string {
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"horkos-webhook","namespace":"elsewhere"},
		"spec":{"replicas":%d,"template":{"spec":{"containers":[{"name":"x","args":[%s]}]}}},"status":{"readyReplicas":%d}}`, replicas, args, ready)
}

func TestStatusTellsWhetherTheWebhookIsAskedAndAnswers(t *testing.T) {
	asked := configurationOf("Fail", "Y2E=", webhookNames...)
	for _, tt := range []struct {
		name                      string
		configuration, deployment string
		ready                     bool
		want                      string
	}{
		{"all is well", asked, deploymentOf(2, 2, `"webhook"`), true, "2 of 2 ready"},
		{"it is not installed", "", "", true, "not installed"},
		{"a dry run", asked, deploymentOf(2, 2, `"webhook","--dry-run"`), true, "lets everything through"},
		{"a replica is away", asked, deploymentOf(2, 1, ""), false, "1 of 2 replicas ready"},
		{"all are away", asked, deploymentOf(2, 0, ""), false, "no replica is ready: what it is asked about is refused. To do: kubectl -n elsewhere get pods; or docs/emergency.md"},
		{"somebody deleted the configuration", "", deploymentOf(2, 2, ""), false, "never asked: kubectl apply"},
		{"somebody deleted the Deployment", asked, "", false, "there is no Deployment"},
		{"one of the two is gone", configurationOf("Fail", "Y2E=", webhookNames[0]), deploymentOf(2, 2, ""), false, webhookNames[1] + " is not in"},
		{"it opens while it is away", configurationOf("Ignore", "Y2E=", webhookNames...), deploymentOf(2, 2, ""), false, `failurePolicy "Ignore"`},
		{"nobody believes it", configurationOf("Fail", "", webhookNames...), deploymentOf(2, 2, ""), false, "no caBundle"},
		{"it may not be read", "Forbidden", "", true, "not known"},
		{"its Deployment may not be read", asked, "Forbidden", true, "not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers := map[string]string{leasePath: "Forbidden"}
			var absent []string
			for path, answer := range map[string]string{configurationPath: tt.configuration, deploymentPath: tt.deployment} {
				if answer == "" {
					absent = append(absent, path)
				}
				answers[path] = answer
			}
			all, err := list(t.Context(), cluster(t, answers, absent...), "elsewhere")
			if err != nil {
				t.Fatal(err)
			}
			s := stateOf(all, statusNow)
			if s.Ready != tt.ready || !strings.Contains(s.Webhook.text(), tt.want) {
				t.Errorf("ready %v, %s", s.Ready, s.Webhook.text())
			}
			var text strings.Builder
			if err := s.write(&text); err != nil || !strings.Contains(text.String(), "webhook     "+s.Webhook.text()) {
				t.Errorf("%v: it prints\n%s", err, &text)
			}
		})
	}
	if _, err := list(t.Context(), cluster(t, map[string]string{leasePath: "Forbidden", configurationPath: "InternalError"}), "elsewhere"); err == nil {
		t.Error("that nobody knows is no error")
	}
	before := webhookState{Known: true, Installed: true, Replicas: 2, Ready: 2}
	if after := before.again(t.Context(), cluster(t, map[string]string{configurationPath: "InternalError"}), "elsewhere"); after.Ready != 2 {
		t.Errorf("what cannot be read for once is %+v", after)
	}
}

// ofManifest is the webhook of daemonset/webhook, which runs in the namespace elsewhere, after a
// change of its first entry.
func ofManifest(t *testing.T, args []any, change func(entry map[string]any)) webhookState {
	t.Helper()
	text, err := os.ReadFile("../../daemonset/webhook/configuration.yaml")
	if err != nil {
		t.Fatal(err)
	}
	o := webhookObjects{namespace: "elsewhere", configuration: &unstructured.Unstructured{}, deployment: &unstructured.Unstructured{}}
	if err := yaml.Unmarshal(text, &o.configuration.Object); err != nil {
		t.Fatal(err)
	}
	entries := o.configuration.Object["webhooks"].([]any)
	for _, e := range entries {
		e.(map[string]any)["clientConfig"].(map[string]any)["caBundle"] = "Y2E="
		e.(map[string]any)["clientConfig"].(map[string]any)["service"].(map[string]any)["namespace"] = "elsewhere"
	}
	change(entries[0].(map[string]any))
	o.deployment.Object = map[string]any{
		"spec":   map[string]any{"replicas": int64(2), "template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"args": args}}}}},
		"status": map[string]any{"readyReplicas": int64(2)},
	}
	return o.state()
}

func TestStatusTellsWhatTheWebhookIsNotAskedAbout(t *testing.T) {
	expressions := func(all ...any) func(map[string]any) {
		return func(entry map[string]any) { entry["namespaceSelector"] = map[string]any{"matchExpressions": all} }
	}
	expression := func(key, operator string, values ...any) map[string]any {
		return map[string]any{"key": key, "operator": operator, "values": values}
	}
	set := func(field string, to any) func(map[string]any) {
		return func(entry map[string]any) { entry[field] = to }
	}
	var many []any
	for i := range namedAtMost + 3 {
		many = append(many, fmt.Sprintf("n%02d", i))
	}
	const byName, matched = "kubernetes.io/metadata.name", "2 of 2 ready; asked only about namespaces that its namespaceSelector matches"
	for _, tt := range []struct {
		name   string
		change func(map[string]any)
		wrong  bool
		want   string // all of it, or its end where something is wrong
	}{
		{"the manifest as it is", func(map[string]any) {}, false, "2 of 2 ready"},
		{"no selector", set("namespaceSelector", map[string]any{}), false, "2 of 2 ready"},
		{"others are left out", expressions(expression(byName, "NotIn", "kube-system", "shop", "horkos-system", "elsewhere", "net")), false, "2 of 2 ready; not asked about namespaces: net, shop"},
		{"by two expressions", expressions(expression(byName, "NotIn", "shop"), expression(byName, "NotIn", "kube-system", "shop", "cart")), false, "2 of 2 ready; not asked about namespaces: cart, shop"},
		{"many are left out", expressions(expression(byName, "NotIn", many...)), false, "2 of 2 ready; not asked about namespaces: n00, n01, n02, n03, n04, n05, n06, n07, n08, n09, n10, n11, n12, n13, n14, n15, n16, n17, n18, n19 and 3 more"},
		{"another label", expressions(expression("horkos", "NotIn", "off")), false, matched},
		{"another operator", expressions(expression(byName, "In", "shop")), false, matched},
		{"labels", set("namespaceSelector", map[string]any{"matchLabels": map[string]any{"horkos": "on"}}), false, matched},
		{"labels, and names", set("namespaceSelector", map[string]any{"matchLabels": map[string]any{"horkos": "on"}, "matchExpressions": []any{expression(byName, "NotIn", "shop")}}), false, matched + "; not asked about namespaces: shop"},
		{"no rules", set("rules", []any{}), true, webhookNames[0] + " has no rules: it is never asked"},
		{"an objectSelector", set("objectSelector", map[string]any{"matchLabels": map[string]any{"horkos": "on"}}), true, webhookNames[0] + " has an objectSelector: whoever sets the labels of an object decides whether it is asked"},
		{"an objectSelector of expressions", set("objectSelector", map[string]any{"matchExpressions": []any{expression("horkos", "Exists")}}), true, "decides whether it is asked"},
		{"an objectSelector that is empty", set("objectSelector", map[string]any{"matchLabels": map[string]any{}}), false, "2 of 2 ready"},
		{"another matchCondition", set("matchConditions", []any{map[string]any{"name": "never", "expression": "false"}}), true, webhookNames[0] + " has matchConditions that the manifest has not: it is asked only where they hold"},
		{"one more matchCondition", func(entry map[string]any) {
			entry["matchConditions"] = append(entry["matchConditions"].([]any), map[string]any{"name": "never", "expression": "false"})
		}, true, "it is asked only where they hold"},
		{"the matchCondition of another expression", set("matchConditions", []any{map[string]any{"name": "what-runs-may-change", "expression": "false"}}), true, "it is asked only where they hold"},
		{"rules of deletions", set("rules", []any{map[string]any{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "operations": []any{"DELETE"}, "resources": []any{"pods"}, "scope": "Namespaced"}}), true, webhookNames[0] + " has other rules than the manifest: there may be kinds and operations that it is not asked about"},
		{"rules without ephemeral containers", func(entry map[string]any) {
			entry["rules"].([]any)[0].(map[string]any)["resources"] = []any{"pods"}
		}, true, "that it is not asked about"},
		{"somebody else's Service", func(entry map[string]any) {
			entry["clientConfig"].(map[string]any)["service"] = map[string]any{"namespace": "mallory", "name": "horkos-webhook"}
		}, true, webhookNames[0] + " calls the Service mallory/horkos-webhook, which is not the webhook's in namespace elsewhere"},
		{"no matchConditions, so it is asked about more", set("matchConditions", []any{}), false, "2 of 2 ready"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := ofManifest(t, nil, tt.change)
			if got := s.text(); (len(s.Problems) > 0) != tt.wrong || !strings.HasSuffix(got, tt.want) || (!tt.wrong && got != tt.want) {
				t.Errorf("problems %q, %s", s.Problems, got)
			}
		})
	}
}

func TestADryRunIsSeenInEachFormOfTheFlagAndBesideProblems(t *testing.T) {
	for args, want := range map[string]bool{
		"": false, "webhook --default-action=allow": false, "--dry-run": true, "--dry-run=true": true, "--dry-run=1": true, "--dry-run=t": true, "--dry-run=TRUE": true,
		"--dry-run=false": false, "--dry-run=0": false, "--dry-run=f": false, "--dry-run --dry-run=false": false, "--dry-run=0 --dry-run": true, "--dry-run-not": false,
	} {
		var all []any
		for _, a := range strings.Fields(args) {
			all = append(all, a)
		}
		s := ofManifest(t, all, func(map[string]any) {})
		if s.DryRun != want || strings.Contains(s.text(), "; a dry run: it lets everything through") != want || !strings.HasPrefix(s.text(), "2 of 2 ready") {
			t.Errorf("%q: %v, %s", args, s.DryRun, s.text())
		}
		s = ofManifest(t, all, func(entry map[string]any) { entry["failurePolicy"] = "Ignore" })
		if strings.Contains(s.text(), "everything passes; a dry run: it lets everything through") != want || len(s.Problems) != 1 {
			t.Errorf("%q, with a problem: %s", args, s.text())
		}
	}
}

func TestAConfigurationThatIsLeftWithoutAnyKindIsToldAndHowToDeleteIt(t *testing.T) {
	asked := configurationOf("Fail", "Y2E=", webhookNames...)
	for _, tt := range []struct {
		name                      string
		configuration, deployment string
		want, never               string
	}{
		{"nothing is left", "", "", "horkos is not installed in it; kubectl apply -k daemonset/", "ValidatingWebhookConfiguration"},
		{"the configuration is", asked, "", "the cluster knows none of the kinds, but ValidatingWebhookConfiguration horkos is there and nobody answers: what it is asked about is refused. To do: kubectl delete validatingwebhookconfiguration horkos", "not installed"},
		{"and a Deployment that is not ready", asked, deploymentOf(2, 0, ""), "To do: kubectl delete validatingwebhookconfiguration horkos", "not installed"},
		{"and one that is", asked, deploymentOf(2, 1, ""), "but the webhook runs. To do: kubectl apply -k crds/manifests", "delete"},
		{"only a Deployment", "", deploymentOf(2, 0, ""), "not installed", "delete"},
		{"and a Deployment that may not be read", asked, "Forbidden", "whether anybody answers is not known: you may not read its Deployment", "delete"},
		{"it may not be read", "Forbidden", "", "you may not read whether ValidatingWebhookConfiguration horkos is there): horkos is not installed", "delete"},
		{"it cannot be read", "InternalError", "", "none of the kinds of horkos; read the ValidatingWebhookConfiguration horkos", "not installed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			absent := []string{kritisPath, "/apis/horkos.dev", "/apis/notation.nirmata.io"}
			_, err := list(t.Context(), cluster(t, map[string]string{configurationPath: tt.configuration, deploymentPath: tt.deployment}, absent...), "elsewhere")
			if err == nil {
				t.Fatal("no error")
			}
			if got := cannotTell(err).Error(); !strings.Contains(got, tt.want) || strings.Contains(got, tt.never) {
				t.Error(got)
			}
		})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/api/v1/nodes":
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"NodeList","metadata":{"resourceVersion":"1"},"items":[]}`)
		case configurationPath:
			fmt.Fprint(w, asked)
		default:
			refuse(w, http.StatusNotFound, "NotFound")
		}
	}))
	t.Cleanup(server.Close)
	kubeconfig := write1(t, "kubeconfig", fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n", server.URL))
	if got := program("status", "--kubeconfig", kubeconfig); got.code != exitUndecided || !strings.Contains(got.errors, "kubectl delete validatingwebhookconfiguration horkos") {
		t.Errorf("%+v", got)
	}
}

func TestTheWebhookIsCalledByItsServiceInItsNamespace(t *testing.T) {
	for _, tt := range []struct {
		given     []string
		namespace string
		want      string
	}{
		{nil, "horkos-system", "[horkos-webhook.horkos-system.svc] []"},
		{nil, "elsewhere", "[horkos-webhook.elsewhere.svc] []"},
		{[]string{"gate.example.com", "127.0.0.1"}, "elsewhere", "[gate.example.com] [127.0.0.1]"},
		{[]string{"::1"}, "elsewhere", "[] [::1]"},
	} {
		if names, addresses := calledBy(tt.given, tt.namespace); fmt.Sprint(names, addresses) != tt.want {
			t.Errorf("%q in %s: %v %v", tt.given, tt.namespace, names, addresses)
		}
	}
	if given := webhookCommand().Flag("tls-name").DefValue; given != "[]" {
		t.Errorf("the flag names %s by itself", given)
	}
	if got := program("webhook", "--help"); !strings.Contains(got.out, "horkos-webhook.NAMESPACE.svc, of --namespace") {
		t.Error(got.out)
	}
	if text := page(t, "docs/cli.md"); !strings.Contains(text, "`horkos-webhook.NAMESPACE.svc`, by `--namespace`") {
		t.Error("docs/cli.md does not say so")
	}
}
