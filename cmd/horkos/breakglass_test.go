package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/webhook/breakglass"
)

// secretAPI is a kubeconfig of an API server that has the key of tokens, or an empty Secret where
// that is nil, or answers code.
func secretAPI(t *testing.T, key []byte, code int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if code != http.StatusOK || r.URL.Path != "/api/v1/namespaces/horkos-system/secrets/horkos-breakglass" {
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, strings.ReplaceAll(http.StatusText(code), " ", ""), code)
			return
		}
		data := fmt.Sprintf(`{"key":%q}`, base64.StdEncoding.EncodeToString(key))
		if key == nil {
			data = "null"
		}
		fmt.Fprintf(w, `{"apiVersion":"v1","kind":"Secret","type":%q,"metadata":{"name":"horkos-breakglass"},"data":%s}`, breakglass.SecretType, data)
	}))
	t.Cleanup(server.Close)
	return write1(t, "kubeconfig", fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n", server.URL))
}

func TestBreakglassMintsATokenThatCounts(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	args := []string{"breakglass", "-n", "shop", "--image", "cart:2", "--image", digestA, "--reason", "INC-7, it burns", "--for", "10m", "--kubeconfig", secretAPI(t, key, http.StatusOK)}
	made := program(args...)
	token, err := breakglass.Verify(key, strings.TrimSpace(made.out), time.Now())
	if made.code != 0 || err != nil || token.Namespace != "shop" || token.Reason != "INC-7, it burns" || len(token.Images) != 2 || token.Expires-token.Minted != 600 {
		t.Errorf("%+v, %+v, %v", made, token, err)
	}
	if _, err := breakglass.Verify(key, strings.TrimSpace(made.out), time.Now().Add(11*time.Minute)); err == nil {
		t.Error("it counts after it expired")
	}
	patch := program(append(args, "-o", "patch")...)
	type annotated struct{ Annotations map[string]string }
	var o struct {
		Metadata annotated
		Spec     struct{ Template struct{ Metadata annotated } }
	}
	if err := json.Unmarshal([]byte(patch.out), &o); err != nil {
		t.Fatalf("%v: %+v", err, patch)
	}
	for _, at := range []annotated{o.Metadata, o.Spec.Template.Metadata} {
		if _, err := breakglass.Verify(key, at.Annotations[breakglass.Annotation], time.Now()); err != nil {
			t.Errorf("%v: %s", err, patch.out)
		}
	}
	cronJob := program(append(args, "-o", "cronjob-patch")...)
	var c struct {
		Metadata annotated
		Spec     struct {
			JobTemplate struct {
				Metadata annotated
				Spec     struct{ Template struct{ Metadata annotated } }
			}
		}
	}
	if err := json.Unmarshal([]byte(cronJob.out), &c); err != nil {
		t.Fatalf("%v: %+v", err, cronJob)
	}
	for _, at := range []annotated{c.Metadata, c.Spec.JobTemplate.Metadata, c.Spec.JobTemplate.Spec.Template.Metadata} {
		if _, err := breakglass.Verify(key, at.Annotations[breakglass.Annotation], time.Now()); err != nil {
			t.Errorf("%v: %s", err, cronJob.out)
		}
	}
	for _, got := range []outcome{made, patch, cronJob} {
		if all := got.out + got.errors; strings.Contains(all, string(key)) || strings.Contains(all, base64.StdEncoding.EncodeToString(key)) {
			t.Error("the key is printed")
		}
	}
}

func TestBreakglassSaysWhatIsWrong(t *testing.T) {
	key := make([]byte, breakglass.KeySize)
	for want, args := range map[string][]string{
		"for 1h0m0s at most":                         {"--for", "61m", "--kubeconfig", "none"},
		"has to be for some time":                    {"--for", "-1m", "--kubeconfig", "none"},
		"is there twice":                             {"--image", "cart:2", "--kubeconfig", "none"},
		"there is no kubeconfig none":                {"--kubeconfig", "none"},
		"only who may read that Secret":              {"--kubeconfig", secretAPI(t, key, http.StatusForbidden)},
		"kubectl apply -k daemonset/webhook":         {"--kubeconfig", secretAPI(t, key, http.StatusNotFound)},
		"its key is not of 32 bytes: empty its data": {"--kubeconfig", secretAPI(t, key[:8], http.StatusOK)},
	} {
		got := program(append([]string{"breakglass", "-n", "shop", "--image", "cart:2", "--reason", "INC-7"}, args...)...)
		if got.code != exitUndecided || got.out != "" || !strings.Contains(got.errors, want) {
			t.Errorf("want %q: %+v", want, got)
		}
	}
}

func TestBreakglassSaysWhoFillsASecretThatIsEmpty(t *testing.T) {
	got := program("breakglass", "-n", "shop", "--image", "cart:2", "--reason", "INC-7", "--kubeconfig", secretAPI(t, nil, http.StatusOK))
	const want = "it is empty: the webhook fills it within a minute, if it runs; kubectl -n horkos-system get pods tells"
	if got.code != exitUndecided || got.out != "" || !strings.Contains(got.errors, want) {
		t.Errorf("%+v", got)
	}
}

func TestTheCommandsOfTheEmergencyPageParse(t *testing.T) {
	ran := 0
	for _, block := range blocks(t, "../../docs/emergency.md", "sh") {
		for line := range strings.Lines(block) {
			line = strings.ReplaceAll(strings.ReplaceAll(line, `"INC-7: roll back"`, "INC-7"), `"$image"`, "cart@"+digestA)
			if _, within, ok := strings.Cut(line, "$(horkos "); ok {
				within, _, _ = strings.Cut(within, ")")
				line = "horkos " + within
			}
			if args := strings.Fields(line); len(args) > 0 && args[0] == "horkos" {
				ran++
				parses(t, args[1:])
			}
		}
	}
	if ran < 2 {
		t.Errorf("%d commands were found", ran)
	}
}
