package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// dockerfile reads a Dockerfile: its instructions, by stage, with lines joined.
func dockerfile(t *testing.T) (stages [][]instruction) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(content), "\\\n", " ")
	for line := range strings.Lines(text) {
		name, rest, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || strings.HasPrefix(name, "#") {
			continue
		}
		if name == "FROM" {
			stages = append(stages, nil)
		}
		if len(stages) == 0 {
			t.Fatalf("%s before the first stage", name)
		}
		last := len(stages) - 1
		stages[last] = append(stages[last], instruction{name, strings.Join(strings.Fields(rest), " ")})
	}
	return stages
}

type instruction struct{ name, rest string }

func TestTheDockerfileMakesTheSameImage(t *testing.T) {
	stages := dockerfile(t)
	if len(stages) != 2 {
		t.Fatalf("%d stages", len(stages))
	}
	got := make(map[string]string)
	for _, i := range stages[1] {
		if _, twice := got[i.name]; twice && i.name != "ARG" {
			t.Errorf("%s twice", i.name)
		}
		got[i.name] = i.rest
	}
	delete(got, "ARG")
	list, err := json.Marshal([]string{entrypoint})
	if err != nil {
		t.Fatal(err)
	}
	var copied []string
	for _, p := range programs {
		copied = append(copied, "/programs/"+p)
	}
	for name, want := range map[string]string{
		"FROM": "scratch", "USER": user, "ENTRYPOINT": string(list), "COPY": "--from=build " + strings.Join(copied, " ") + " /",
	} {
		if got[name] != want {
			t.Errorf("%s %s, want %s", name, got[name], want)
		}
		delete(got, name)
	}
	labelled := make(map[string]string)
	for _, m := range regexp.MustCompile(`(\S+)="([^"]*)"`).FindAllStringSubmatch(got["LABEL"], -1) {
		labelled[m[1]] = m[2]
	}
	delete(got, "LABEL")
	for name := range got {
		t.Errorf("%s is not in the image of make image", name)
	}
	want := labels(options{version: "$VERSION", revision: "$REVISION"})
	want["org.opencontainers.image.created"] = "$CREATED"
	for label, value := range want {
		if labelled[label] != value {
			t.Errorf("label %s is %q, want %q", label, labelled[label], value)
		}
		delete(labelled, label)
	}
	if len(labelled) > 0 {
		t.Errorf("labels that make image does not write: %v", labelled)
	}
}

func TestTheDockerfileBuildsTheProgramsAsTheMakefileDoes(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + ` :?= (.*)$`).FindSubmatch(makefile)
		if m == nil {
			t.Fatalf("%s is not in the Makefile", name)
		}
		return string(m[1])
	}
	want := strings.ReplaceAll(value("image_programs"), "$(PRODUCT)", value("PRODUCT"))
	want = strings.NewReplacer("$(GO)", "go", "$(VERSION)", "$VERSION", "'", `"`, "$(BIN)/image-programs/$(1)", "/programs", "$(1)", "$TARGETARCH").Replace(want)
	var got string
	for _, i := range dockerfile(t)[0] {
		if i.name == "RUN" && strings.Contains(i.rest, "go build") {
			got = i.rest
		}
	}
	if got != want {
		t.Errorf("the Dockerfile builds by\n%s\nand the Makefile by\n%s", got, want)
	}
}

func TestTheDockerfileIsBuiltByAPinnedGoOfTheModulesRelease(t *testing.T) {
	module, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	release := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(module)
	from := dockerfile(t)[0][0].rest
	if release == nil || !regexp.MustCompile(`^--platform=\$BUILDPLATFORM golang:`+regexp.QuoteMeta(string(release[1]))+`\.\d+ AS build$`).MatchString(from) {
		t.Errorf("FROM %s, and go.mod says %s", from, release)
	}
}

func TestWhatIsBuiltOfIsNotLeftOutOfTheContext(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	ignored := strings.Fields(string(content))
	for _, needed := range []string{".git", "bin"} {
		if !slices.Contains(ignored, needed) {
			t.Errorf("%s is sent to the builder: the programs would differ, or the context be large", needed)
		}
	}
	out, err := exec.Command("go", "list", "-deps", "-tags", "grpcnotrace", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}",
		root+"/cmd/horkos", root+"/cmd/horkos-node").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		folder, _, _ := strings.Cut(strings.TrimPrefix(pkg, "github.com/horkos/horkos/"), "/")
		if slices.Contains(ignored, folder) {
			t.Errorf("%s is needed to build, and left out", pkg)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		if slices.Contains(ignored, file) {
			t.Errorf("%s is needed to build, and left out", file)
		}
	}
}
