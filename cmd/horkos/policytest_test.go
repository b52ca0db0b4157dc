package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// caseOf is a case over the policies of unmet, in shop.yaml beside it.
func caseOf(name, image, want string) string {
	return "name: " + name + "\nobjects: [shop.yaml]\nrequest: {namespace: shop, images: [{name: \"" + image + "\"}]}\nwant: " + want + "\n"
}

// folderOf writes files by name into a folder.
func folderOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCasesPassAndFail(t *testing.T) {
	good := caseOf("nobody attested it", cart+"@"+digestA, "{result: denied, reason: NotAttested, message: by authority release}")
	tests := []struct {
		name, text string
		code       int
		out        []string
	}{
		{"one that passes", good, 0, []string{"ok      nobody attested it\n"}},
		{"several in a file", good + "--- # more\n" + caseOf("a tag", cart+":1", "{result: unresolved, reason: TagNotResolved}"), 0, []string{"ok      nobody", "ok      a tag\n"}},
		{"in JSON", `{"name": "j", "request": {"namespace": "x", "defaultAction": "allow", "images": [{"name": "nginx"}]}, "want": {"result": "allowed", "reason": "NoPolicy"}}`, 0, []string{"ok      j"}},
		{"deny is the default", "{name: d, request: {namespace: x, images: [{name: nginx}]}, want: {result: denied, reason: NoPolicy}}", 0, []string{"ok      d"}},
		{"another result", good + "---\n" + caseOf("a wish", cart+"@"+digestA, "{result: allowed, reason: Attested}"), 1,
			[]string{"ok      nobody", "FAILED  a wish (", "        got  denied, NotAttested: image ", "        want allowed, Attested\n"}},
		{"another reason", caseOf("r", cart+"@"+digestA, "{result: denied, reason: ImageRevoked}"), 1, []string{"want denied, ImageRevoked\n"}},
		{"another message", caseOf("m", cart+"@"+digestA, "{result: denied, reason: NotAttested, message: nothing of it}"), 1, []string{"want denied, NotAttested: nothing of it\n"}},
		{"duplicates of the cluster", "name: c\ncluster: [shop.yaml, shop.yaml]\nrequest: {namespace: shop, images: [{name: \"" + cart + "@" + digestA + "\"}]}\nwant: {result: denied, reason: NotAttested}\n---\n" +
			"name: d\ncluster: [shop.yaml, twin]\nrequest: {namespace: shop, images: [{name: \"" + cart + "@" + digestA + "\"}]}\nwant: {result: misconfigured, reason: ObjectMalformed, message: also in}\n", 0, []string{"ok      c", "ok      d"}},
		{"a cluster that does not parse", "name: c\ncluster: [broken.yaml]\nrequest: {namespace: shop, images: [{name: nginx}]}\nwant: {result: misconfigured, reason: ObjectMalformed}\n", 0, []string{"ok      c"}},
		{"another origin beside", "name: c\nobjects: [shop.yaml]\ncluster:\n- {apiVersion: horkos.dev/v1alpha1, kind: ImageRevocation, metadata: {name: r}, spec: {digests: [\"" + digestA + "\"]}}\nrequest: {namespace: shop, images: [{name: \"" + cart + "@" + digestA + "\"}]}\nwant: {result: denied, reason: ImageRevoked}\n", 0, []string{"ok      c"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// As JSON it is read as YAML too: the name of the file tells nothing.
			dir := folderOf(t, map[string]string{"cases.yaml": tt.text, "shop.yaml": unmet, "twin/shop.yaml": unmet, "broken.yaml": "{"})
			got := program("policy", "test", filepath.Join(dir, "cases.yaml"))
			if got.code != tt.code {
				t.Errorf("exit %d, want %d: %s%s", got.code, tt.code, got.out, got.errors)
			}
			for _, part := range tt.out {
				if !strings.Contains(got.out, part) {
					t.Errorf("%q is not in\n%s", part, got.out)
				}
			}
			if failed := strings.Count(got.out, "FAILED"); failed != tt.code || strings.Contains(got.errors, "1 of ") != (failed > 0) {
				t.Errorf("%d failed, said %q", failed, got.errors)
			}
		})
	}
}

func TestCasesThatCannotBeReadAreNoSuccess(t *testing.T) {
	want := "want: {result: allowed, reason: NoPolicy}\n"
	tests := map[string]struct{ text, want string }{
		"no YAML":                       {"\n{", "c.yaml:2: did not find"},
		"nothing":                       {"# nothing\n---\n", "no case in"},
		"no name":                       {"request: {namespace: x, images: [{name: nginx}]}\n" + want, "no name"},
		"an unknown field":              {"name: a\nwants: {}\n", "c.yaml:2: unknown field \"wants\""},
		"an unknown field of a request": {"# x\n---\nname: a\nobjects: [{naem: x}]\nrequest:\n  images:\n  - naem: x\n", "c.yaml:7: unknown field \"naem\""},
		"a field twice":                 {"name: a\nrequest:\n  namespace: x\n  namespace: y\n", "c.yaml:4: \"namespace\" is written twice"},
		"a text for fields":             {"name: a\n\nrequest: shop\n" + want, "c.yaml:3: request: want fields and their values, not string"},
		"a text for a list":             {"name: a\nrequest:\n  images: nginx\n" + want, "c.yaml:3: request.images: want a list, not string"},
		"a number for a text":           {"name: a\nrequest:\n  images:\n  - name: 1\n" + want, "c.yaml:4: request.images.name: want a string, not number"},
		"a time that is no":             {"name: a\nrequest:\n  at: tomorrow\n" + want, "c.yaml:3: request.at: want a time of RFC 3339, such as 2027-06-01T00:00:00Z, not \"tomorrow\""},
		"a duration that is no":         {"name: a\nevidence: [{image: x, key: y, signedAt: soon}]\n" + want, "c.yaml:1: want a duration such as -1h, not \"soon\""},
		"a list":                        {"- name: a\n", "c.yaml:1: want a case: name, objects, request and want"},
		"a manifest":                    {"# it\n" + unmet, "c.yaml:2: this is a manifest (AttestationAuthority), not a case"},
		"a reason that is no":           {"name: a\nrequest: {namespace: x, images: [{name: nginx}]}\nwant:\n  result: denied\n  reason: NotAtested\n", "c.yaml:5: want.reason: unknown reason \"NotAtested\": want one of NoPolicy, Exempt, "},
		"a result in other words":       {"name: a\nwant:\n  result: deny\n", "c.yaml:3: want.result: unknown result \"deny\": want allowed, denied, unresolved, unavailable or misconfigured"},
		"nothing wanted":                {"name: a\nrequest: {namespace: x, images: [{name: nginx}]}\n", "c.yaml:1: case \"a\": want: a result and a reason are needed"},
		"no reason":                     {"name: a\nrequest: {namespace: x, images: [{name: nginx}]}\nwant: {result: denied}\n", "a result and a reason are needed"},
		"a result that is no":           {"name: a\nwant: {result: fine, reason: NoPolicy}\n", "unknown result"},
		"no image":                      {"name: a\nrequest: {namespace: x}\n" + want, "at least one image"},
		"no namespace":                  {"name: a\nrequest: {images: [{name: nginx}]}\n" + want, "cannot be the name of a namespace"},
		"an action that is no":          {"name: a\nrequest: {namespace: x, defaultAction: maybe, images: [{name: nginx}]}\n" + want, "want allow or deny"},
		"an image that is no":           {"name: a\nrequest: {namespace: x, images: [{name: UPPER}]}\n" + want, "UPPER"},
		"no such file":                  {"name: a\nobjects: [gone.yaml]\nrequest: {namespace: x, images: [{name: nginx}]}\n" + want, "gone.yaml"},
		"no such key":                   {"name: a\nevidence: [{image: \"nginx@" + digestA + "\", key: gone}]\nrequest: {namespace: x, images: [{name: nginx}]}\n" + want, "gone"},
		"a good one before":             {"name: b\nrequest: {namespace: x, defaultAction: allow, images: [{name: nginx}]}\n" + want + "---\nname: a\n", "a result and a reason"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := program("policy", "test", folderOf(t, map[string]string{"c.yaml": tt.text}))
			if got.code != exitUndecided || !strings.Contains(got.errors, tt.want) || strings.Contains(got.out, "ok      a") {
				t.Errorf("%+v, want %q", got, tt.want)
			}
			for _, inward := range []string{"cases.", "json", "Go ", "unmarshal", "\n"} {
				if strings.Contains(strings.TrimSpace(got.errors), inward) {
					t.Errorf("%q is in %s", inward, got.errors)
				}
			}
		})
	}
}

func TestAllCasesOfAFolderAreTriedAndPrintedAsJSON(t *testing.T) {
	dir := folderOf(t, map[string]string{
		"a.yaml":         "name: a\nobjects: [policies, {apiVersion: v1, kind: Namespace, metadata: {name: shop}}]\nrequest: {namespace: shop, images: [{name: \"" + cart + "@" + digestA + "\"}]}\nwant: {result: denied, reason: NotAttested}\n",
		"b.yml":          "name: b\nrequest: {namespace: x, images: [{name: nginx}]}\nwant: {result: allowed, reason: NoPolicy}\n",
		"c.json":         `{"name": "c", "request": {"namespace": "x", "images": [{"name": "nginx"}]}, "want": {"result": "denied", "reason": "NoPolicy"}}`,
		".hidden.yaml":   "{",
		"notes.txt":      "{",
		"policies/p.yml": unmet,
	})
	got := program("policy", "test", dir, "-o", "json")
	if got.code != exitNotAllowed {
		t.Errorf("exit %d: %s", got.code, got.errors)
	}
	var raw []map[string]json.RawMessage
	if err := json.Unmarshal([]byte(got.out), &raw); err != nil {
		t.Fatalf("%v: %s", err, got.out)
	}
	for _, r := range raw {
		hasKeys(t, r, "name", "file", "ok", "got", "want")
		for _, key := range []string{"got", "want"} {
			var one map[string]json.RawMessage
			if err := json.Unmarshal(r[key], &one); err != nil {
				t.Fatal(err)
			}
			hasKeys(t, one, "result", "reason", "message", "missing")
		}
	}
	var all []tested
	if err := json.Unmarshal([]byte(got.out), &all); err != nil || len(all) != 3 {
		t.Fatalf("%v: %s", err, got.out)
	}
	if !all[0].OK || all[1].OK || !all[2].OK || all[1].File != filepath.Join(dir, "b.yml") || all[1].Got.Reason != "NoPolicy" {
		t.Errorf("%+v", all)
	}
	if got := program("policy", "test", dir, filepath.Join(dir, "policies")); got.code != exitUndecided {
		t.Errorf("manifests for cases: %+v", got)
	}
}
