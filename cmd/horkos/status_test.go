package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/controller"
)

var statusNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// listedObjects reads objects, a line each, into a listing in which the controller runs. Nodes
// are named by their name only. Of a CustomResourceDefinition the kind is not there.
func listedObjects(t *testing.T, lines ...string) listing {
	t.Helper()
	all := newListing()
	all.lease = leaseSeen{namespace: "horkos-system", at: statusNow, leader: "r1", renewed: statusNow.Add(-2 * time.Second), duration: 15 * time.Second}
	for _, line := range lines {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(line), &u.Object); err != nil {
			t.Fatal(err)
		}
		switch u.GetKind() {
		case "Node":
			all.objects[controller.Nodes()] = append(all.objects[controller.Nodes()], &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: u.GetName()}})
			continue
		case "NodeGate":
			all.objects[controller.NodeGates()] = append(all.objects[controller.NodeGates()], u)
			continue
		case "Lease":
			all.lease = leaseOf(u, statusNow)
			continue
		case "CustomResourceDefinition":
			for _, r := range statusResources() {
				if r.Resource == u.GetName() {
					all.absent[r] = true
				}
			}
			continue
		}
		for _, k := range controller.Kinds() {
			if k.Name == u.GetKind() {
				u.SetGeneration(2)
				all.objects[k.Resource] = append(all.objects[k.Resource], u)
			}
		}
	}
	return all
}

func nodeLine(name string) string { return "{kind: Node, metadata: {name: " + name + "}}" }

func gateLine(name, status string) string {
	return "{kind: NodeGate, metadata: {name: " + name + "}, status: {" + status + "}}"
}

func policyLine(name, status string, generation int) string {
	return fmt.Sprintf("{kind: GenericAttestationPolicy, metadata: {name: %s, namespace: shop}, status: {conditions: [{type: Ready, status: %s, observedGeneration: %d, message: why}]}}", name, status, generation)
}

func absentLine(plural string) string {
	return "{kind: CustomResourceDefinition, metadata: {name: " + plural + "}}"
}

func leaseLine(spec string) string {
	return "{kind: Lease, metadata: {name: horkos-controller, namespace: horkos-system}, spec: {" + spec + "}}"
}

const heard = `mode: enforce, version: v1, ready: true, policyRevision: aaaaaaaaaaaa, syncedAt: "2026-11-21T11:59:48Z", observedAt: "2026-11-21T11:59:50Z"`

func TestTheStateOfAClusterIsReadyWhenAllIs(t *testing.T) {
	silent := strings.ReplaceAll(heard, "T11:59", "T09:59")
	for _, tt := range []struct {
		name    string
		lines   []string
		ready   bool
		summary string
		printed string
	}{
		{"an empty one", nil, true, "ready: 0 of 0 nodes ready, 0 of 0 objects ready, 0 warnings, 0 revocations of 0 digests", ""},
		{"a gated node and a policy", []string{nodeLine("a"), gateLine("a", heard), policyLine("p", "'True'", 2)}, true, "ready: 1 of 1 node ready, 1 of 1 object ready, 0 warnings", "a     enforce  yes    aaaaaaaaaaaa  12 s ago"},
		{"a node without a gate", []string{nodeLine("a")}, false, "not ready: 0 of 1 node ready, 1 ungated", "there is no NodeGate of it"},
		{"a gate without a node", []string{gateLine("a", heard)}, true, "ready: 0 of 0 nodes", ""},
		{"a gate that is not ready", []string{nodeLine("a"), gateLine("a", strings.Replace(heard, "ready: true", "ready: false, problems: [policies expired]", 1))}, false, "not ready: 0 of 1", "policies expired"},
		{"a gate that says nothing", []string{nodeLine("a"), gateLine("a", "")}, false, "not ready: 0 of 1", "has not said anything yet"},
		{"a gate that fell silent", []string{nodeLine("a"), gateLine("a", silent)}, false, "not ready: 0 of 1", "was last heard 2 h ago"},
		{"a gate that cannot be read", []string{nodeLine("a"), gateLine("a", "mode: [1]")}, false, "not ready: 0 of 1", "cannot be read"},
		{"another revision is told, and no more", []string{nodeLine("a"), nodeLine("b"), nodeLine("c"), gateLine("a", heard), gateLine("b", heard), gateLine("c", strings.Replace(heard, "aaaaaaaaaaaa", "bbbbbbbbbbbb", 1))}, true, "1 with other policies than most", "bbbbbbbbbbbb (others differ)"},
		{"a policy that is not ready", []string{policyLine("p", "'False'", 2)}, false, "0 of 1 object ready", "shop/p  "},
		{"a policy that was not judged", []string{"{kind: AdmissionAllowlist, metadata: {name: l}}"}, false, "0 of 1 object ready", "NotJudged"},
		{"a policy of which an older generation was", []string{policyLine("p", "'True'", 1)}, false, "0 of 1 object ready", "NotJudged"},
		{"a policy that a controller that runs has not judged", []string{policyLine("p", "'True'", 1)}, false, "0 of 1 object ready", "NotJudged  horkos controller has not looked at it yet: look again in a few seconds\n"},
		{"a policy that nobody judges", []string{policyLine("p", "'True'", 1), leaseLine("")}, false, "0 of 1 object ready", "NotJudged  horkos controller has not looked at it: does it run? kubectl -n horkos-system get pods\n"},
		{"revocations", []string{"{kind: ImageRevocation, metadata: {name: r}, spec: {digests: [a, b, c]}}"}, false, "1 revocation of 3 digests", ""},
		{"a controller that leads", nil, true, "ready: ", "controller  running, the leader is r1\n"},
		{"a controller that is late", []string{leaseLine(`holderIdentity: r1, leaseDurationSeconds: 15, renewTime: "2026-11-21T11:59:15.000000Z"`)}, true, "ready: ", "controller  running, the leader is r1\n"},
		{"a controller that is gone", []string{leaseLine(`holderIdentity: r1, leaseDurationSeconds: 15, renewTime: "2026-11-21T11:59:14.000000Z"`)}, false, "not ready: 0 of 0 nodes ready, controller not running, 0 of",
			"controller  not running for 46 s (Lease horkos-controller): conditions are not kept current; kubectl -n horkos-system get pods\n"},
		{"a Lease that was just given back", []string{leaseLine(`holderIdentity: "", leaseDurationSeconds: 1, renewTime: "2026-11-21T11:59:55.000000Z"`)}, true, "ready: ", "controller  running, a new leader is awaited\n"},
		{"a Lease that was given back to nobody", []string{leaseLine(`holderIdentity: "", leaseDurationSeconds: 1, renewTime: "2026-11-21T11:55:00.000000Z"`)}, false, "not ready: ", "controller  not running for 5 min (Lease"},
		{"a Lease that nobody held", []string{leaseLine("")}, false, "not ready: ", "controller  not running (there is no Lease horkos-controller in the namespace horkos-system): conditions"},
		{"a Lease of a clock that is ahead", []string{leaseLine(`holderIdentity: r1, leaseDurationSeconds: 15, renewTime: "2026-11-21T13:00:00.000000Z"`)}, true, "ready: ", "running, the leader is r1"},
		{"a kind that is not served", []string{absentLine("genericattestationpolicies"), "{kind: AdmissionAllowlist, metadata: {name: l}}", nodeLine("a"), gateLine("a", heard)}, false, "not ready: 1 of 1 node ready, 1 kind not served, 0 of 1 object ready",
			"GenericAttestationPolicy  -     NotServed  the API server does not know the kind: kubectl apply -k crds/manifests; nodes keep the last ones in force\n"},
		{"no NodeGates", []string{absentLine("nodegates"), nodeLine("a")}, false, "not ready: 0 of 1 node ready, 1 kind not served, 0 of 0", "not known: the API server does not know the kind NodeGate"},
		{"names that are not fit for a terminal", []string{nodeLine(`"a\u001b[2J"`)}, false, "", "a?[2J"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := stateOf(listedObjects(t, tt.lines...), statusNow)
			var out bytes.Buffer
			if err := s.write(&out); err != nil {
				t.Fatal(err)
			}
			if s.Ready != tt.ready || !strings.Contains(s.summary(), tt.summary) || !strings.HasSuffix(out.String(), s.summary()+"\n") || !strings.Contains(out.String(), tt.printed) {
				t.Errorf("ready %v, printed\n%s", s.Ready, out.String())
			}
		})
	}
}

func TestTimeAloneIsNoChangeUntilAGateIsSilent(t *testing.T) {
	all := listedObjects(t, nodeLine("a"), gateLine("a", heard))
	s := stateOf(all, statusNow)
	if !s.same(stateOf(all, statusNow.Add(time.Minute))) {
		t.Error("a minute later it would be printed again")
	}
	if s.same(stateOf(all, statusNow.Add(time.Hour))) {
		t.Error("that the gate fell silent would not be printed")
	}
	all.lease.at, all.lease.renewed = statusNow.Add(time.Minute), statusNow.Add(time.Minute)
	if !s.same(stateOf(all, statusNow)) {
		t.Error("each renewal of the Lease would be printed")
	}
	all.lease.at = statusNow.Add(2 * time.Minute)
	if s.same(stateOf(all, statusNow)) {
		t.Error("that the controller is gone would not be printed")
	}
}

func TestWhatCannotBeToldSaysWhatToDo(t *testing.T) {
	resource := schema.GroupResource{Resource: "nodes"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errNotInstalled, "kubectl apply -k daemonset/"},
		{apierrors.NewForbidden(resource, "", errors.New("no")), "use a kubeconfig of somebody who may"},
		{fmt.Errorf("list: %w", &url.Error{Op: "Get", URL: "https://127.0.0.1:1", Err: errors.New("refused")}), "the API server does not answer"},
	} {
		if got := cannotTell(tt.err).Error(); !strings.Contains(got, tt.want) {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
	t.Setenv("KUBECONFIG", t.TempDir()+"/none")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if got := program("status"); got.code != exitUndecided || !strings.Contains(got.errors, "no kubeconfig at KUBECONFIG, which is "+os.Getenv("KUBECONFIG")+": give --kubeconfig FILE, or set KUBECONFIG") {
		t.Errorf("without a kubeconfig: %+v", got)
	}
	if got := program("status", "--kubeconfig", t.TempDir()+"/none"); got.code != exitUndecided || !strings.Contains(got.errors, "none: give another with --kubeconfig FILE, or leave that out and set KUBECONFIG") {
		t.Errorf("without that kubeconfig: %+v", got)
	}
	if got := program("controller"); got.code != exitUndecided || !strings.Contains(got.errors, "outside of a pod give --kubeconfig FILE") {
		t.Errorf("a controller outside of a pod: %+v", got)
	}
}

func TestEveryReasonIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../../controller/reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	reasons := regexp.MustCompile(`(?m)^\t[A-Z]\w+ += "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(reasons) < 15 {
		t.Fatalf("only %d are found", len(reasons))
	}
	for _, r := range reasons {
		if !strings.Contains(string(text), "| `"+r[1]+"` ") {
			t.Errorf("%s is not in docs/cli.md", r[1])
		}
	}
}
