package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Kubectl runs kubectl as the administrator, in the folder of the checkout
// ("apply", "-k", "daemonset/"), and returns what it printed. That it does not exit with 0
// is an error with the end of what it says.
func (p *ControlPlane) Kubectl(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	return p.KubectlAs(ctx, p.AdminKubeconfig, "", args...)
}

// KubectlAs is Kubectl as who a kubeconfig says, with the text for its standard input
// ("apply", "-f", "-").
func (p *ControlPlane) KubectlAs(ctx context.Context, kubeconfig, stdin string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := withDefaultTimeout(ctx, time.Minute)
	defer cancel()
	// A file of the run is in the command line, so that one that outlives its caller is found.
	command := exec.CommandContext(ctx, p.run.tool("kubectl"), append([]string{"--kubeconfig=" + kubeconfig}, args...)...)
	command.Dir = p.run.root
	command.Env = append(os.Environ(), p.KubectlCache())
	command.Stdin = strings.NewReader(stdin)
	var out, says bytes.Buffer
	command.Stdout, command.Stderr = &out, &says
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the caller
	if err := command.Run(); err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, tail(says.String(), 2048))
		return out.String(), says.String(), err
	}
	return out.String(), says.String(), nil
}

// KubectlCache is the entry of the environment, KEY=value, that keeps kubectl from leaving
// what it remembers of this API server in the caller's home.
func (p *ControlPlane) KubectlCache() string { return "KUBECACHEDIR=" + p.file("kubectl") }

// tail is the end of a text, at most so many bytes.
func tail(text string, most int) string {
	text = strings.TrimSpace(text)
	return text[max(0, len(text)-most):]
}
