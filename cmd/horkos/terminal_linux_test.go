package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// typed runs the program at a terminal, where somebody types a line.
func typed(t *testing.T, line string, args ...string) outcome {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a terminal: %v", err)
	}
	defer keyboard.Close()
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a terminal: %v", err)
	}
	defer terminal.Close()
	if _, err := keyboard.WriteString(line); err != nil {
		t.Fatal(err)
	}
	var out, errors bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetIn(terminal)
	cmd.SetOut(&out)
	cmd.SetErr(&errors)
	return outcome{run(context.Background(), cmd), out.String(), errors.String()}
}
