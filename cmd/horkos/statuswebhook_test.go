package main

import (
	"fmt"
	"strings"
	"testing"
)

const (
	configurationPath = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/horkos"
	deploymentPath    = "/apis/apps/v1/namespaces/elsewhere/deployments/horkos-webhook"
)

func configurationOf(policy, bundle string, names ...string) string {
	var webhooks []string
	for _, name := range names {
		webhooks = append(webhooks, fmt.Sprintf(`{"name":%q,"failurePolicy":%q,"clientConfig":{"caBundle":%q}}`, name, policy, bundle))
	}
	return fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingWebhookConfiguration","metadata":{"name":"horkos"},"webhooks":[%s]}`, strings.Join(webhooks, ","))
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
		{"all are away", asked, deploymentOf(2, 0, ""), false, "no replica is ready"},
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
