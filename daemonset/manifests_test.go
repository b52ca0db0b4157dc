package daemonset

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	admission "k8s.io/api/admissionregistration/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/controller"
	"github.com/horkos/horkos/node"
	"github.com/horkos/horkos/plugin"
)

const (
	namespace = "horkos-system"
	imageName = "registry.example.com/horkos"
)

// kinds make an empty object of every kind that there is.
var kinds = map[string]func() metav1.Object{
	"Namespace":                        func() metav1.Object { return &core.Namespace{} },
	"ServiceAccount":                   func() metav1.Object { return &core.ServiceAccount{} },
	"ClusterRole":                      func() metav1.Object { return &rbac.ClusterRole{} },
	"ClusterRoleBinding":               func() metav1.Object { return &rbac.ClusterRoleBinding{} },
	"Role":                             func() metav1.Object { return &rbac.Role{} },
	"RoleBinding":                      func() metav1.Object { return &rbac.RoleBinding{} },
	"ValidatingAdmissionPolicy":        func() metav1.Object { return &admission.ValidatingAdmissionPolicy{} },
	"ValidatingAdmissionPolicyBinding": func() metav1.Object { return &admission.ValidatingAdmissionPolicyBinding{} },
	"DaemonSet":                        func() metav1.Object { return &apps.DaemonSet{} },
	"Deployment":                       func() metav1.Object { return &apps.Deployment{} },
	"NetworkPolicy":                    func() metav1.Object { return &networking.NetworkPolicy{} },
}

type kustomization struct {
	Resources []string
	Images    []struct{ Name, NewTag string }
}

func read(t *testing.T, name string, strict bool, into any) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err == nil && strict {
		err = yaml.UnmarshalStrict(content, into)
	} else if err == nil {
		err = yaml.Unmarshal(content, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// manifests are the objects of the folder, by kind and name.
func manifests(t *testing.T) map[string]metav1.Object {
	t.Helper()
	var k kustomization
	read(t, "kustomization.yaml", false, &k)
	all := make(map[string]metav1.Object)
	for _, file := range k.Resources {
		if filepath.Ext(file) != ".yaml" {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
			var meta metav1.TypeMeta
			if err := yaml.Unmarshal(document, &meta); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			empty := kinds[meta.Kind]
			if empty == nil {
				t.Fatalf("%s: kind %q", file, meta.Kind)
			}
			object := empty()
			if err := yaml.UnmarshalStrict(document, object); err != nil {
				t.Errorf("%s: %s: %v", file, meta.Kind, err)
			}
			all[meta.Kind+" "+object.GetName()] = object
		}
	}
	return all
}

func object[T metav1.Object](t *testing.T, name string) T {
	t.Helper()
	o, ok := manifests(t)[name].(T)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return o
}

func pods(t *testing.T) map[string]core.PodSpec {
	t.Helper()
	return map[string]core.PodSpec{
		"horkos-node":       object[*apps.DaemonSet](t, "DaemonSet horkos-node").Spec.Template.Spec,
		"horkos-controller": object[*apps.Deployment](t, "Deployment horkos-controller").Spec.Template.Spec,
	}
}

func TestEveryManifestIsReadAndIsOurs(t *testing.T) {
	var k kustomization
	read(t, "kustomization.yaml", false, &k)
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if file != "kustomization.yaml" && !slices.Contains(k.Resources, file) {
			t.Errorf("%s is in no kustomization", file)
		}
	}
	read(t, "../crds/manifests/kustomization.yaml", false, &kustomization{})
	if !slices.Contains(k.Resources, "../crds/manifests") {
		t.Error("the kinds are not applied")
	}
	for name, o := range manifests(t) {
		if o.GetLabels()["app.kubernetes.io/part-of"] != "horkos" {
			t.Errorf("%s has not the label app.kubernetes.io/part-of=horkos", name)
		}
		switch o.(type) {
		case *core.Namespace, *rbac.ClusterRole, *rbac.ClusterRoleBinding, *admission.ValidatingAdmissionPolicy, *admission.ValidatingAdmissionPolicyBinding:
			if o.GetNamespace() != "" {
				t.Errorf("%s is in namespace %s", name, o.GetNamespace())
			}
		default:
			if o.GetNamespace() != namespace {
				t.Errorf("%s is in namespace %q", name, o.GetNamespace())
			}
		}
	}
}

func TestTheImageIsOneAndIsChangedInOnePlace(t *testing.T) {
	var k kustomization
	read(t, "kustomization.yaml", false, &k)
	if len(k.Images) != 1 || k.Images[0].Name != imageName || k.Images[0].NewTag != "VERSION" {
		t.Errorf("images: %+v", k.Images)
	}
	for name, want := range map[string]string{"horkos-node": "/horkos-node", "horkos-controller": "/horkos"} {
		containers := pods(t)[name].Containers
		if len(containers) != 1 || containers[0].Image != imageName || !slices.Equal(containers[0].Command, []string{want}) {
			t.Errorf("%s: %+v", name, containers)
		}
	}
}

// flagsOf are the names of the flags that the files define, by pflag or by the command
// line's own choose(cmd, &value, default, NAME, ...).
func flagsOf(t *testing.T, files ...string) []string {
	t.Helper()
	var flags []string
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			at := -1
			switch f := call.Fun.(type) {
			case *ast.SelectorExpr:
				if strings.HasSuffix(f.Sel.Name, "Var") {
					at = 1
				}
			case *ast.Ident:
				if f.Name == "choose" {
					at = 3
				}
			}
			if at < 0 || len(call.Args) <= at {
				return true
			}
			if literal, ok := call.Args[at].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				name, _ := strconv.Unquote(literal.Value)
				flags = append(flags, name)
			}
			return true
		})
	}
	return flags
}

func TestThePodsGiveFlagsThatTheirProgramsHave(t *testing.T) {
	for name, files := range map[string][]string{
		"horkos-node":       {"../cmd/horkos-node/main.go"},
		"horkos-controller": {"../cmd/horkos/controller.go"},
	} {
		known := flagsOf(t, files...)
		if len(known) < 5 {
			t.Fatalf("%s: only %q are flags: has the way they are made changed?", name, known)
		}
		args := pods(t)[name].Containers[0].Args
		if name == "horkos-controller" {
			if args[0] != "controller" {
				t.Errorf("%s: the command is %s", name, args[0])
			}
			args = args[1:]
		}
		for _, arg := range args {
			flag, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if !strings.HasPrefix(arg, "--") || !slices.Contains(known, flag) {
				t.Errorf("%s: %s is no flag", name, arg)
			}
		}
	}
}

// given are the flags of the DaemonSet.
func given(t *testing.T) map[string]string {
	flags := make(map[string]string)
	for _, arg := range pods(t)["horkos-node"].Containers[0].Args {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		flags[name] = value
	}
	return flags
}

func TestTheDaemonSetAuditsAndSaysThatItIsFailOpen(t *testing.T) {
	flags := given(t)
	if flags["enforcement"] != "audit" {
		t.Errorf("--enforcement=%s", flags["enforcement"])
	}
	if _, ok := flags["in-cluster"]; !ok || flags["node-name"] != "$(NODE_NAME)" {
		t.Errorf("it follows no cluster as the node it is on: %v", flags)
	}
	env := pods(t)["horkos-node"].Containers[0].Env
	if len(env) != 3 || env[0].Name != "NODE_NAME" || env[0].ValueFrom.FieldRef.FieldPath != "spec.nodeName" {
		t.Errorf("the environment is %v", env)
	}
	said := object[*apps.DaemonSet](t, "DaemonSet horkos-node").Annotations["horkos.dev/fail-open"]
	for _, part := range []string{plugin.AuditFullName, "fail-open while absent", "systemd/"} {
		if !strings.Contains(said, part) {
			t.Errorf("the annotation does not say %q: %s", part, said)
		}
	}
}

func TestTwoGatesOfANodeShareNoStateFolder(t *testing.T) {
	host := node.Defaults()
	state := given(t)["state-dir"]
	if state == "" || state == host.StateDir || strings.HasPrefix(state, host.StateDir+"/") || strings.HasPrefix(host.StateDir, state+"/") {
		t.Errorf("the DaemonSet's state folder is %q, the host gate's %s", state, host.StateDir)
	}
	if strings.Contains(given(t)["health-address"], "/") {
		t.Error("the health socket would be the host gate's, or be seen by nobody")
	}
}

func TestTheDaemonSetHasTheFoldersOfTheHostThatItNeedsAndNoMore(t *testing.T) {
	const made, there = core.HostPathDirectoryOrCreate, core.HostPathDirectory
	want := []string{
		fmt.Sprint("/var/run/nri", true, there, ""),
		fmt.Sprint("/run/containerd", true, there, core.RecursiveReadOnlyIfPossible),
		fmt.Sprint("/var/lib/containerd/io.containerd.content.v1.content", true, there, ""),
		fmt.Sprint("/etc/horkos/policies", true, made, ""),
		fmt.Sprint("/var/lib/horkos-audit", false, made, ""),
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	pod := pods(t)["horkos-node"]
	folders := make(map[string]*core.HostPathVolumeSource)
	for _, v := range pod.Volumes {
		if folders[v.Name] = v.HostPath; v.HostPath == nil {
			t.Fatalf("volume %s is no folder of the host", v.Name)
		}
	}
	var got []string
	for _, m := range pod.Containers[0].VolumeMounts {
		folder := folders[m.Name]
		if folder == nil || folder.Path != m.MountPath {
			t.Fatalf("%s is another path in the pod than on the host: %+v", m.MountPath, folder)
		}
		recursive := core.RecursiveReadOnlyMode("")
		if m.RecursiveReadOnly != nil {
			recursive = *m.RecursiveReadOnly
		}
		if m.MountPropagation != nil || m.SubPath != "" {
			t.Errorf("%s: %+v", m.MountPath, m)
		}
		got = append(got, fmt.Sprint(folder.Path, m.ReadOnly, *folder.Type, recursive))
		if !strings.Contains(string(readme), "| `"+folder.Path+"` |") {
			t.Errorf("README.md does not say why %s is there", folder.Path)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("mounts\n%q\nwant\n%q", got, want)
	}
	flags := given(t)
	for flag, folder := range map[string]string{"nri-socket": "/var/run/nri/", "containerd-address": "/run/containerd/", "policy-dir": "/etc/horkos/policies", "state-dir": "/var/lib/horkos-audit"} {
		if !strings.HasPrefix(flags[flag], folder) {
			t.Errorf("--%s=%s is not in %s", flag, flags[flag], folder)
		}
	}
}

func TestNoPodHasRightsItDoesNotNeed(t *testing.T) {
	for name, pod := range pods(t) {
		c := pod.Containers[0]
		s := c.SecurityContext
		if pod.HostNetwork || pod.HostPID || pod.HostIPC || len(pod.InitContainers) > 0 {
			t.Errorf("%s shares something with the host: %+v", name, pod)
		}
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				t.Errorf("%s: port %d of the host", name, port.HostPort)
			}
		}
		if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || s.Capabilities.Add != nil || (s.Privileged != nil && *s.Privileged) {
			t.Errorf("%s: %+v", name, s)
		}
		seccomp := s.SeccompProfile
		if seccomp == nil {
			seccomp = pod.SecurityContext.SeccompProfile
		}
		if seccomp == nil || seccomp.Type != core.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: seccomp %v", name, seccomp)
		}
		if pod.ServiceAccountName != name || c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() {
			t.Errorf("%s: account %s, resources %v", name, pod.ServiceAccountName, c.Resources)
		}
	}
	if s := pods(t)["horkos-node"].Containers[0].SecurityContext; *s.RunAsUser != 0 {
		t.Errorf("containerd listens to root only, and it runs as %d", *s.RunAsUser)
	}
	controller := pods(t)["horkos-controller"]
	if !*controller.SecurityContext.RunAsNonRoot || controller.Containers[0].SecurityContext.RunAsUser != nil || controller.Volumes != nil {
		t.Errorf("the controller: %+v", controller.SecurityContext)
	}
}

func TestTheGateIsOnEveryNodeAndAnUpdateDoesNotWaitForItself(t *testing.T) {
	set := object[*apps.DaemonSet](t, "DaemonSet horkos-node")
	pod := set.Spec.Template.Spec
	if len(pod.Tolerations) != 1 || pod.Tolerations[0] != (core.Toleration{Operator: core.TolerationOpExists}) || pod.PriorityClassName != "system-node-critical" {
		t.Errorf("tolerations %v, priority %s", pod.Tolerations, pod.PriorityClassName)
	}
	terms := pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 1 || len(terms[0].MatchExpressions) != 1 || terms[0].MatchExpressions[0].String() != "&NodeSelectorRequirement{Key:horkos.dev/gate,Operator:NotIn,Values:[host],}" {
		t.Errorf("it is kept from nodes by %v", terms)
	}
	update := set.Spec.UpdateStrategy.RollingUpdate
	if update.MaxSurge.IntValue() != 1 || update.MaxUnavailable.IntValue() != 0 {
		t.Errorf("update %v", update)
	}
	// The new pod gets the state folder when the old one ends, and the old one ends when the new is ready.
	c := pod.Containers[0]
	if c.ReadinessProbe != nil || c.StartupProbe != nil || set.Spec.MinReadySeconds != 0 {
		t.Error("the new pod of a node would be ready only after the old one ended, and the old one waits for it")
	}
	// The daemon waits 30 s for the one before (node.takeover), and gives up then.
	const takeover = 30 * time.Second
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace >= takeover {
		t.Errorf("the old one may take %v to end, and the new one gives up after %v", grace, takeover)
	}
	if first := time.Duration(c.LivenessProbe.InitialDelaySeconds) * time.Second; first <= takeover {
		t.Errorf("the new one is killed after %v, while it may wait for %v", first, takeover)
	}
}

func TestTheControllersLeaseIsTheOneItsRoleSpeaksOf(t *testing.T) {
	role := object[*rbac.Role](t, "Role horkos-controller")
	if !slices.Equal(role.Rules[0].ResourceNames, []string{controller.LeaseName}) {
		t.Errorf("%v, want %s", role.Rules[0].ResourceNames, controller.LeaseName)
	}
	if replicas := object[*apps.Deployment](t, "Deployment horkos-controller").Spec.Replicas; *replicas != 2 {
		t.Errorf("%d replicas", *replicas)
	}
}

// spelled are rules as "group/resource[name]: verbs".
func spelled(rules []rbac.PolicyRule) []string {
	var all []string
	for _, r := range rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, name := range r.ResourceNames {
					resource += "[" + name + "]"
				}
				all = append(all, group+"/"+resource+": "+strings.Join(r.Verbs, " "))
			}
		}
		if len(r.NonResourceURLs) > 0 {
			all = append(all, fmt.Sprint(r.NonResourceURLs))
		}
	}
	slices.Sort(all)
	return all
}

func TestTheRolesGiveTheseVerbsAndNoOthers(t *testing.T) {
	read := []string{
		"horkos.dev/clusterattestationpolicies: list watch",
		"horkos.dev/imagerevocations: list watch",
		"kritis.grafeas.io/admissionallowlists: list watch",
		"kritis.grafeas.io/attestationauthorities: list watch",
		"kritis.grafeas.io/genericattestationpolicies: list watch",
		"kritis.grafeas.io/imagesecuritypolicies: list watch",
		"notation.nirmata.io/trustpolicies: list watch",
		"notation.nirmata.io/truststores: list watch",
	}
	written := []string{
		"/nodes: list watch",
		"events.k8s.io/events: create",
		"horkos.dev/nodegates: list watch delete",
	}
	for _, rule := range read {
		resource, _, _ := strings.Cut(rule, ":")
		written = append(written, resource+"/status: patch")
	}
	tests := []struct {
		name  string
		rules []rbac.PolicyRule
		want  []string
	}{
		{"the node", object[*rbac.ClusterRole](t, "ClusterRole horkos-node").Rules, slices.Concat(read, []string{
			"/namespaces: list watch",
			"apiextensions.k8s.io/customresourcedefinitions: list watch",
			"horkos.dev/imageattestations: get",
			"horkos.dev/nodegates: create patch",
			"horkos.dev/nodegates/status: patch",
		})},
		{"the controller", object[*rbac.ClusterRole](t, "ClusterRole horkos-controller").Rules, slices.Concat(read, written)},
		{"the controller in its namespace", object[*rbac.Role](t, "Role horkos-controller").Rules, []string{
			"coordination.k8s.io/leases: create",
			"coordination.k8s.io/leases[horkos-controller]: get update",
		}},
	}
	for _, tt := range tests {
		slices.Sort(tt.want)
		if got := spelled(tt.rules); !slices.Equal(got, tt.want) {
			t.Errorf("%s may\n%s\nwant\n%s", tt.name, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}

func TestTheRolesAreBoundToTheseAndNobodyElse(t *testing.T) {
	account := func(name string) rbac.Subject {
		return rbac.Subject{Kind: "ServiceAccount", Name: name, Namespace: namespace}
	}
	nodes := object[*rbac.ClusterRoleBinding](t, "ClusterRoleBinding horkos-node")
	want := []rbac.Subject{account("horkos-node"), {Kind: "Group", APIGroup: "rbac.authorization.k8s.io", Name: "system:nodes"}}
	if nodes.RoleRef.Name != "horkos-node" || !slices.Equal(nodes.Subjects, want) {
		t.Errorf("%v: %v", nodes.RoleRef, nodes.Subjects)
	}
	for _, b := range []struct {
		role     rbac.RoleRef
		subjects []rbac.Subject
	}{
		{object[*rbac.ClusterRoleBinding](t, "ClusterRoleBinding horkos-controller").RoleRef, object[*rbac.ClusterRoleBinding](t, "ClusterRoleBinding horkos-controller").Subjects},
		{object[*rbac.RoleBinding](t, "RoleBinding horkos-controller").RoleRef, object[*rbac.RoleBinding](t, "RoleBinding horkos-controller").Subjects},
	} {
		if b.role.Name != "horkos-controller" || !slices.Equal(b.subjects, []rbac.Subject{account("horkos-controller")}) {
			t.Errorf("%v: %v", b.role, b.subjects)
		}
	}
}

func TestTheRuleOnNodeGatesFailsClosed(t *testing.T) {
	guard := object[*admission.ValidatingAdmissionPolicy](t, "ValidatingAdmissionPolicy horkos-nodegates").Spec
	binding := object[*admission.ValidatingAdmissionPolicyBinding](t, "ValidatingAdmissionPolicyBinding horkos-nodegates").Spec
	if *guard.FailurePolicy != admission.Fail || binding.PolicyName != "horkos-nodegates" || !slices.Equal(binding.ValidationActions, []admission.ValidationAction{admission.Deny}) || binding.MatchResources != nil {
		t.Errorf("%v, %+v", *guard.FailurePolicy, binding)
	}
	rules := guard.MatchConstraints.ResourceRules
	if len(rules) != 1 || !slices.Equal(rules[0].Resources, []string{"nodegates", "nodegates/status"}) || len(rules[0].Operations) != 3 || len(rules[0].ResourceNames) > 0 {
		t.Errorf("%+v", rules)
	}
	for _, v := range guard.Validations {
		if v.Message == "" {
			t.Errorf("%s has no message", v.Expression)
		}
	}
	if user := "'system:serviceaccount:" + namespace + ":horkos-node'"; !strings.Contains(guard.MatchConditions[0].Expression, user) || !strings.Contains(guard.Variables[0].Expression, user) {
		t.Errorf("it does not speak of %s", user)
	}
}
