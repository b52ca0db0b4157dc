package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/horkos/horkos/verifier"
)

func TestAuditTailCutsLinesOnATerminalOnlyAndToItsWidth(t *testing.T) {
	path, l := auditLog(t)
	logDecision(t, l, 1, verifier.Denied)
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a terminal: %v", err)
	}
	defer screen.Close()
	// The size is that of both ends.
	for columns, want := range map[uint16]string{100: "by authority rele…", 300: "(no attestation found)", 0: "(no attestation found)"} {
		if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: columns}); err != nil {
			t.Fatal(err)
		}
		shown := &tail{path: path, n: 1, out: screen, errs: io.Discard, patience: time.Millisecond}
		lines, err := shown.lastOf(path, 1)
		if err != nil || len(lines) != 1 {
			t.Fatalf("%d lines, %v", len(lines), err)
		}
		if n := len([]rune(lines[0])); !strings.HasSuffix(lines[0], want) || (columns > 0 && n > int(columns)) {
			t.Errorf("%d columns, %d letters: %s", columns, n, lines[0])
		}
	}
}
