package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
	source "github.com/horkos/horkos/verifier/source/objects"
)

const folderSource = "folder"

// world is what a gate decides by: policies and attestations.
type world struct {
	snap    *policy.Snapshot
	memory  *evidence.Memory
	decider verifier.Decider
	ignored []source.Ignored
}

// newWorld compiles sets of objects.
func newWorld(defaultAction string, sets ...crds.Set) *world {
	var all []crds.Object
	for _, s := range sets {
		all = append(all, s.Objects...)
	}
	records, ignored := source.Records(all)
	w := &world{
		snap:   policy.Compile(sets...),
		memory: evidence.NewMemory(),
		decider: verifier.Decider{
			Default: verifier.DefaultAction(defaultAction == "allow"),
			Sources: []evidence.Question{{Source: folderSource}},
		},
		ignored: ignored,
	}
	w.memory.Replace(folderSource, records)
	return w
}

// warn tells what is wrong with the objects.
func (w *world) warn(cmd *cobra.Command) {
	for _, f := range w.snap.Findings() {
		warn(cmd, f.Source, f.Object, f.Message)
	}
	for _, i := range w.ignored {
		warn(cmd, i.Source, i.Object, "ignored: "+i.Message)
	}
}

// warn tells of a problem with a manifest, which may hold anything, on standard error.
func warn(cmd *cobra.Command, source, object, message string) {
	text := source + ": "
	if object != "" && !strings.Contains(message, object) {
		text += object + ": "
	}
	fmt.Fprintln(cmd.ErrOrStderr(), printable(text+message))
}

// printable makes what others wrote fit for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
