package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

const configMaps = "/api/v1/namespaces/default/configmaps"

func TestAControlPlaneServesEachIdentityWhatItMay(t *testing.T) {
	RequireCluster(t)
	control := startControlPlane(t, New(t))
	ctx := t.Context()
	nobody, err := control.Client("nobody")
	if err != nil {
		t.Fatal(err)
	}
	node, err := control.Client("system:node:other", "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		who     *API
		path    string
		refused bool
	}{
		{"the administrator lists secrets", control.Admin, "/api/v1/secrets", false},
		{"a user without roles lists nothing", nobody, configMaps, true},
		{"a node lists nodes", node, "/api/v1/services", false},
		{"a node does not list secrets", node, "/api/v1/secrets", true},
	}
	for _, test := range tests {
		if _, err := test.who.Get(ctx, test.path); IsReason(err, "Forbidden") != test.refused || !test.refused && err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if _, err := node.Create(ctx, "/api/v1/nodes", Object{"metadata": Object{"name": "another"}}); !IsReason(err, "Forbidden") {
		t.Errorf("a node registers another: %v", err)
	}
}

func TestTheClientOfAControlPlaneDoesWhatTheAPIOffers(t *testing.T) {
	RequireCluster(t)
	api := startControlPlane(t, New(t)).Admin
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must := func(object Object, err error) Object {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
	list := must(api.Get(ctx, configMaps))
	made := must(api.Create(ctx, configMaps, configMap("one", "created")))
	if _, err := api.Create(ctx, configMaps, configMap("one", "again")); !IsReason(err, "AlreadyExists") {
		t.Errorf("created twice: %v", err)
	}
	made["data"] = Object{"value": "replaced"}
	must(api.Replace(ctx, configMaps+"/one", made))
	if _, err := api.Replace(ctx, configMaps+"/one", made); !IsReason(err, "Conflict") {
		t.Errorf("replaced what had changed: %v", err)
	}
	must(api.Apply(ctx, configMaps+"/one", "test", configMap("one", "applied")))
	must(api.Merge(ctx, configMaps+"/one", Object{"data": Object{"value": "merged"}}))
	must(api.Delete(ctx, configMaps+"/one"))
	if _, err := api.Get(ctx, configMaps+"/one"); !IsReason(err, "NotFound") {
		t.Errorf("deleted and still there: %v", err)
	}

	// What the watch tells from the list on is all that was done.
	var seen []string
	enough := errors.New("enough")
	err := api.Watch(ctx, fmt.Sprintf("%s?resourceVersion=%s", configMaps, Field(list, "metadata", "resourceVersion")), func(kind string, object Object) error {
		if Field(object, "metadata", "name") != "one" {
			return nil
		}
		seen = append(seen, fmt.Sprintf("%s %v", kind, Field(object, "data", "value")))
		if kind == "DELETED" {
			return enough
		}
		return nil
	})
	want := "ADDED created, MODIFIED replaced, MODIFIED applied, MODIFIED merged, DELETED merged"
	if got := strings.Join(seen, ", "); !errors.Is(err, enough) || got != want {
		t.Errorf("watched %q, %v; want %q", got, err, want)
	}
	err = api.Watch(ctx, configMaps+"?timeoutSeconds=1", func(string, Object) error { return nil })
	if !errors.Is(err, io.EOF) {
		t.Errorf("a watch that the server ends: %v, want EOF", err)
	}
}

func TestKubectlOfAControlPlaneSaysWhatItDidAndWhyNot(t *testing.T) {
	RequireCluster(t)
	control := startControlPlane(t, New(t))
	ctx := t.Context()
	stdout, stderr, err := control.Kubectl(ctx, "create", "configmap", "one", "--from-literal=value=1")
	if err != nil || stdout != "configmap/one created\n" || stderr != "" {
		t.Errorf("create: %q, %q, %v", stdout, stderr, err)
	}
	if _, stderr, err = control.Kubectl(ctx, "get", "configmap", "two"); err == nil || !strings.Contains(stderr, "NotFound") || !strings.Contains(err.Error(), stderr[:10]) {
		t.Errorf("get of what is not there: %q, %v", stderr, err)
	}
	nobody, err := control.WriteKubeconfig("nobody", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	manifest := `{apiVersion: v1, kind: ConfigMap, metadata: {name: three}}`
	if _, stderr, err = control.KubectlAs(ctx, nobody, manifest, "create", "-f", "-"); err == nil || !strings.Contains(stderr, "Forbidden") {
		t.Errorf("create by a user without roles: %q, %v", stderr, err)
	}
	if stdout, _, err = control.KubectlAs(ctx, control.AdminKubeconfig, manifest, "create", "-f", "-"); err != nil || stdout != "configmap/three created\n" {
		t.Errorf("create from standard input: %q, %v", stdout, err)
	}
}

// TestEachPartOfAControlPlaneComesBack: killed, the API server is at the same address
// again, and what it was told is there.
func TestEachPartOfAControlPlaneComesBack(t *testing.T) {
	RequireCluster(t)
	control := startControlPlane(t, New(t))
	ctx := t.Context()
	if _, err := control.Admin.Create(ctx, configMaps, configMap("one", "kept")); err != nil {
		t.Fatal(err)
	}
	for _, s := range control.services() {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if s.Ready(ctx) == nil {
			t.Errorf("%s is killed and serves", s.name)
		}
		began := time.Now()
		if err := s.Start(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s was back after %v", s.name, time.Since(began).Round(time.Millisecond))
	}
	if err := control.APIServer.WaitReady(ctx); err != nil { // etcd was away
		t.Fatal(err)
	}
	object, err := control.Admin.Get(ctx, configMaps+"/one")
	if err != nil || Field(object, "data", "value") != "kept" {
		t.Errorf("after the end of all parts: %v, %v", object, err)
	}
}

func TestARestoredControlPlaneForgetsWhatWasWrittenSince(t *testing.T) {
	RequireCluster(t)
	control := startControlPlane(t, New(t))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	create := func(name string) {
		t.Helper()
		if _, err := control.Admin.Create(ctx, configMaps, configMap(name, "")); err != nil {
			t.Fatal(err)
		}
	}
	version := func() any {
		t.Helper()
		list, err := control.Admin.Get(ctx, configMaps)
		if err != nil {
			t.Fatal(err)
		}
		return Field(list, "metadata", "resourceVersion")
	}
	cluster := func() any {
		t.Helper()
		namespace, err := control.Admin.Get(ctx, "/api/v1/namespaces/kube-system")
		if err != nil {
			t.Fatal(err)
		}
		return Field(namespace, "metadata", "uid")
	}
	create("before")
	uid := cluster()
	began := time.Now()
	snapshot, err := control.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a snapshot took %v", time.Since(began).Round(time.Millisecond))
	for i := range 300 {
		create(fmt.Sprintf("after-%d", i))
	}
	late := version()
	began = time.Now()
	if err := control.Restore(ctx, snapshot); err != nil {
		t.Fatal(err)
	}
	t.Logf("a restore took %v; the resource version was %v and is %v", time.Since(began).Round(time.Millisecond), late, version())
	if _, err := control.Admin.Get(ctx, configMaps+"/before"); err != nil {
		t.Errorf("what the snapshot holds: %v", err)
	}
	if _, err := control.Admin.Get(ctx, configMaps+"/after-0"); !IsReason(err, "NotFound") {
		t.Errorf("what was written since: %v, want NotFound", err)
	}
	var early, then int
	if _, err := fmt.Sscan(fmt.Sprint(version(), " ", late), &early, &then); err != nil || early >= then {
		t.Errorf("the resource version is %d after and %d before, %v; want it to go back", early, then, err)
	}
	if cluster() != uid {
		t.Error("the restored cluster has another UID")
	}
}

func startControlPlane(t *testing.T, run *Run) *ControlPlane {
	t.Helper()
	began := time.Now()
	control, err := run.StartControlPlane(t.Context(), ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the control plane was healthy after %v", time.Since(began).Round(time.Millisecond))
	logMemory(t, control.services()...)
	return control
}

// logMemory tells how much memory programs have resident.
func logMemory(t *testing.T, services ...*Service) {
	t.Helper()
	for _, s := range services {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(status), "VmRSS:")
		var kib int
		if _, err := fmt.Sscan(after, &kib); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has %d MB resident", s.name, kib/1024)
	}
}

func configMap(name, value string) Object {
	return Object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": Object{"name": name}, "data": Object{"value": value}}
}
