package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The test binary is also the program that tests end: see startHelper.
const envHelper = "HARNESS_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(envHelper) == "program" {
		if err := Program(helper); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(Main(m))
}

const app = Host + "/team/app:1"

func TestAContainerRunsOnEachContainerd(t *testing.T) {
	tests := []struct {
		name    string
		options ContainerdOptions
	}{
		{"containerd 2.4 runs a container", ContainerdOptions{Version: Containerd24}},
		{"containerd 2.2 runs a container", ContainerdOptions{Version: Containerd22}},
		{"containerd 2.4 runs a container from the native snapshotter", ContainerdOptions{Snapshotter: "native"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			run := New(t)
			registry := startRegistry(t, run)
			pushed := push(t, registry, app, Image{Seed: "one", Index: true})
			test.options.Registry = registry
			began := time.Now()
			containerd, err := run.StartContainerd(t.Context(), test.options)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("containerd served after %v", time.Since(began).Round(time.Millisecond))
			began = time.Now()
			id := runContainer(t, containerd, app)
			t.Logf("pod and container ran after %v", time.Since(began).Round(time.Millisecond))

			status, err := containerd.CRI.Container(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if status.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
				t.Errorf("the container is %v; want running", status.GetState())
			}
			if image, err := containerd.CRI.Image(t.Context(), app); err != nil || image.GetId() != pushed.Config {
				t.Errorf("the image's id is %s, %v; want %s", image.GetId(), err, pushed.Config)
			}
			seed, err := containerd.CRI.Exec(t.Context(), id, "/pause", "print", "/seed")
			if err != nil || seed != "one" {
				t.Errorf("the container holds %q, %v; want one", seed, err)
			}
			if _, err := containerd.Ctr(t.Context(), "images", "tag", pushed.ByTag(), Host+"/team/app:2"); err != nil {
				t.Error(err)
			}
			if err := containerd.CRI.StopContainer(t.Context(), id, 10*time.Second); err != nil {
				t.Error(err)
			}
			if status, err = containerd.CRI.Container(t.Context(), id); err != nil || status.GetExitCode() != 0 {
				t.Errorf("stopped by SIGTERM the container exits with %d, %v; want 0", status.GetExitCode(), err)
			}
		})
	}
}

func TestContainersOutliveTheEndOfContainerd(t *testing.T) {
	run := New(t)
	containerd := startContainerd(t, run, ContainerdOptions{Registry: startRegistry(t, run)})
	id := runContainer(t, containerd, PauseImage)
	for name, end := range map[string]func() error{
		"stop": func() error { return containerd.Stop(t.Context()) },
		"kill": containerd.Kill,
	} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if containerd.Ready(t.Context()) == nil {
			t.Fatalf("%s: containerd still serves", name)
		}
		if err := containerd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		status, err := containerd.CRI.Container(t.Context(), id)
		if err != nil || status.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Fatalf("%s: the container is %v, %v; want running", name, status.GetState(), err)
		}
	}
}

func TestARequiredPluginThatIsAwayDeniesEveryContainer(t *testing.T) {
	for _, version := range []string{Containerd24, Containerd22} {
		run := New(t)
		containerd := startContainerd(t, run, ContainerdOptions{
			Version:  version,
			Registry: startRegistry(t, run),
			NRI:      NRIOptions{RequiredPlugins: []string{"99-horkos"}, RequestTimeout: time.Second},
		})
		pod := runPod(t, containerd)
		_, err := containerd.CRI.CreateContainer(t.Context(), pod, ContainerConfig{Image: PauseImage})
		if err == nil || !strings.Contains(err.Error(), "99-horkos") {
			t.Errorf("containerd %s: %v; want a refusal that names the plugin", version, err)
		}
	}
}

func TestImagesAreWhatTheirDescriptionSays(t *testing.T) {
	run := New(t)
	registry := startRegistry(t, run)
	plain := push(t, registry, app, Image{Seed: "one"})
	same := push(t, registry, Host+"/other/app:1", Image{Seed: "one"})
	twin := push(t, registry, Host+"/twin/app:1", Image{Seed: "one", Annotations: map[string]string{"a": "b"}})
	labelled := push(t, registry, Host+"/label/app:1", Image{Seed: "one", Labels: map[string]string{"a": "b"}})
	index := push(t, registry, Host+"/index/app:1", Image{Seed: "one", Index: true})

	if same.Digest != plain.Digest {
		t.Error("the same description gives another manifest")
	}
	if twin.Config != plain.Config || twin.Digest == plain.Digest {
		t.Error("a twin has the same config and another manifest")
	}
	if labelled.Config == plain.Config {
		t.Error("another label is the same config")
	}
	if index.Manifest != plain.Manifest || index.Digest == index.Manifest {
		t.Error("an index lists the manifest and is not it")
	}
}

func TestAStoppedRegistryServesNothingAndKeepsItsContent(t *testing.T) {
	run := New(t)
	registry := startRegistry(t, run)
	containerd := startContainerd(t, run, ContainerdOptions{Registry: registry})
	pushed := push(t, registry, app, Image{Seed: "one"})
	if err := registry.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := containerd.CRI.Pull(t.Context(), app); err == nil {
		t.Error("a stopped registry served an image")
	}
	if err := registry.Start(); err != nil {
		t.Fatal(err)
	}
	if id, err := containerd.CRI.Pull(t.Context(), app); err != nil || id != pushed.Config {
		t.Errorf("pull: %s, %v; want %s", id, err, pushed.Config)
	}
}

func TestAnImageVolumeHoldsItsImage(t *testing.T) {
	run := New(t)
	registry := startRegistry(t, run)
	containerd := startContainerd(t, run, ContainerdOptions{Registry: registry})
	push(t, registry, Host+"/team/data:1", Image{Seed: "data"})
	pod := runPod(t, containerd)
	id, err := containerd.CRI.RunContainer(t.Context(), pod, ContainerConfig{
		Image:   PauseImage,
		Volumes: []ImageVolume{{Image: Host + "/team/data:1", Path: "/data"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if seed, err := containerd.CRI.Exec(t.Context(), id, "/pause", "print", "/data/seed"); err != nil || seed != "data" {
		t.Errorf("the volume holds %q, %v; want data", seed, err)
	}
}

func TestAStandaloneKubeletRunsAStaticPod(t *testing.T) {
	run := New(t)
	registry := startRegistry(t, run)
	push(t, registry, app, Image{Seed: "static"})
	containerd := startContainerd(t, run, ContainerdOptions{Registry: registry})
	began := time.Now()
	kubelet, err := run.StartKubelet(t.Context(), KubeletOptions{Containerd: containerd})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the kubelet was healthy after %v", time.Since(began).Round(time.Millisecond))
	if err := kubelet.WriteStaticPod("app.json", staticPod(t, app)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"default/app-node/init": "terminated", "default/app-node/main": "running"}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err = Poll(ctx, "the static pod", func(ctx context.Context) error {
		states, err := kubelet.Containers(ctx)
		if err != nil {
			return err
		}
		for name, state := range want {
			if states[name].State != state {
				return fmt.Errorf("%s is %+v", name, states[name])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the static pod ran after %v", time.Since(began).Round(time.Millisecond))
}

func TestNothingIsLeftOfARun(t *testing.T) {
	Require(t)
	for _, version := range []string{Containerd24, Containerd22} {
		before := settings(t)
		run, err := NewRun()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = run.Close() })
		containerd := startContainerd(t, run, ContainerdOptions{Version: version, Registry: startRegistry(t, run)})
		runContainer(t, containerd, PauseImage)
		kubelet, err := run.StartKubelet(t.Context(), KubeletOptions{Containerd: containerd})
		if err != nil {
			t.Fatal(err)
		}
		if err := kubelet.WriteStaticPod("app.json", staticPod(t, PauseImage)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := Poll(ctx, "the static pod", hasContainers(containerd, 2)); err != nil {
			t.Fatal(err, kubelet.LogTail())
		}
		began := time.Now()
		if err := run.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("closed in %v", time.Since(began).Round(time.Millisecond))
		wantNothingLeft(t, run.Dir)
		wantSettings(t, before)
		if err := run.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
		if err := containerd.Start(t.Context()); err == nil {
			t.Error("containerd starts in a run that is closed")
		}
	}
}

func TestAnInterruptedProgramLeavesNothing(t *testing.T) {
	Require(t)
	program, dir := startHelper(t, "program")
	if err := program.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("the interrupted program: %v", err)
	}
	wantNothingLeft(t, dir)
}

func TestInterruptedTestsLeaveNothing(t *testing.T) {
	Require(t)
	tests, dir := startHelper(t, "tests")
	if err := tests.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := tests.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("the interrupted tests: %v, want exit status 130", err)
	}
	wantNothingLeft(t, dir)
}

func TestTheNextRunRemovesWhatAKilledProgramLeft(t *testing.T) {
	Require(t)
	program, dir := startHelper(t, "program")
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = program.Wait()
	if ids, err := processes(dir); err != nil || len(ids) == 0 {
		t.Errorf("processes %v, %v; containers outlive a killed program, or there is nothing to test", ids, err)
	}
	New(t)
	wantNothingLeft(t, dir)
}

// TestHelper is what startHelper ends as a test.
func TestHelper(t *testing.T) {
	if os.Getenv(envHelper) != "tests" {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_ = helper(ctx, New(t))
}

// helper runs a container, says where, and waits to be ended.
func helper(ctx context.Context, run *Run) error {
	registry, err := run.StartRegistry(RegistryOptions{})
	if err != nil {
		return err
	}
	containerd, err := run.StartContainerd(ctx, ContainerdOptions{Registry: registry})
	if err != nil {
		return err
	}
	pod, err := containerd.CRI.RunPod(ctx, PodConfig{})
	if err != nil {
		return err
	}
	if _, err := containerd.CRI.RunContainer(ctx, pod, ContainerConfig{Image: PauseImage}); err != nil {
		return err
	}
	fmt.Println("run:", run.Dir)
	<-ctx.Done()
	return nil
}

func TestTriesScale(t *testing.T) {
	tests := []struct {
		factor string
		full   int
		want   int
	}{
		{"", 50, 10}, {"1", 50, 50}, {"0.5", 50, 25}, {"2", 50, 100}, {"0.01", 50, 1},
	}
	for _, test := range tests {
		t.Setenv(envTries, test.factor)
		if got := Tries(t, test.full); got != test.want {
			t.Errorf("Tries of %d with %q: %d, want %d", test.full, test.factor, got, test.want)
		}
	}
}

func startRegistry(t *testing.T, run *Run) *Registry {
	t.Helper()
	registry, err := run.StartRegistry(RegistryOptions{Referrers: true})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

func push(t *testing.T, registry *Registry, ref string, image Image) Pushed {
	t.Helper()
	pushed, err := registry.Push(ref, image)
	if err != nil {
		t.Fatal(err)
	}
	return pushed
}

func startContainerd(t *testing.T, run *Run, options ContainerdOptions) *Containerd {
	t.Helper()
	containerd, err := run.StartContainerd(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return containerd
}

func runPod(t *testing.T, containerd *Containerd) *Pod {
	t.Helper()
	pod, err := containerd.CRI.RunPod(t.Context(), PodConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func runContainer(t *testing.T, containerd *Containerd, image string) string {
	t.Helper()
	id, err := containerd.CRI.RunContainer(t.Context(), runPod(t, containerd), ContainerConfig{Image: image})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func hasContainers(containerd *Containerd, want int) func(context.Context) error {
	return func(ctx context.Context) error {
		containers, err := containerd.CRI.Containers(ctx)
		if err != nil {
			return err
		}
		if len(containers) < want {
			return fmt.Errorf("%d containers, want %d", len(containers), want)
		}
		return nil
	}
}

func staticPod(t *testing.T, image string) []byte {
	t.Helper()
	manifest, err := json.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata":   map[string]any{"name": "app"},
		"spec": map[string]any{
			"hostNetwork":    true,
			"initContainers": []any{map[string]any{"name": "init", "image": image, "args": []string{"exit", "0"}}},
			"containers":     []any{map[string]any{"name": "main", "image": image}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

// startHelper starts this binary as a program, or as tests, and waits until it runs a
// container; it returns the folder of its run.
func startHelper(t *testing.T, kind string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$")
	cmd.Env = append(os.Environ(), envHelper+"="+kind)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if dir, found := strings.CutPrefix(lines.Text(), "run: "); found {
			return cmd, dir
		}
	}
	t.Fatal("the helper did not get to run a container")
	return nil, ""
}

func wantNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if ids, err := processes(dir); err != nil || len(ids) > 0 {
		t.Errorf("processes are left: %v, %v", ids, err)
	}
	mounts, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if strings.Contains(m.path, filepath.Base(dir)) {
			t.Errorf("a mount is left: %s", m.path)
		}
	}
	roots, err := cgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		if left, _ := filepath.Glob(filepath.Join(root, filepath.Base(dir)+"*")); len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
	}
}

// settings are the kernel settings, and which of the folders exist, that a run may change.
// While another run is on the machine they are also what that one made of them: empty.
func settings(t *testing.T) string {
	t.Helper()
	if others(t) {
		return ""
	}
	var all []string
	for _, name := range kernelSettings {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, name+"="+strings.TrimSpace(string(value)))
	}
	for _, folder := range []string{kubeletLogs, kubeletDir, kubeletDevices, cniResults, "/run/containerd", "/opt/containerd", "/opt/nri"} {
		entries, err := os.ReadDir(folder)
		all = append(all, fmt.Sprintf("%s: %d entries, exists %t", folder, len(entries), err == nil))
	}
	return strings.Join(all, ", ")
}

// wantSettings holds the settings now against those from before.
func wantSettings(t *testing.T, before string) {
	t.Helper()
	after := settings(t)
	if before == "" || after == "" {
		t.Log("another run is on this machine: what this one made of kernel settings and folders of the machine cannot be told apart")
		return
	}
	if after != before && !others(t) { // one may have begun in between
		t.Errorf("kernel settings and folders of the machine: %s before, %s after", before, after)
	}
}

// others tells whether a run is on this machine, or ended without cleaning up.
func others(t *testing.T) bool {
	t.Helper()
	found := false
	if err := eachRun(func(string) error { found = true; return nil }); err != nil {
		t.Fatal(err)
	}
	return found
}
