package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice is the value of a flag that takes one of a few words.
type choice struct {
	words []string
	value string
}

// choose adds a flag of a few words, which the shell completes; value is the default, and
// none when it is empty.
func choose(cmd *cobra.Command, c *choice, value, name, short, usage string, words ...string) {
	c.words, c.value = words, value
	cmd.Flags().VarP(c, name, short, usage)
	// It fails only for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.words, "|") }
func (c *choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("want %s", strings.Join(c.words, " or "))
	}
	c.value = s
	return nil
}

// outputFlag adds -o.
func outputFlag(cmd *cobra.Command, c *choice) {
	choose(cmd, c, "table", "output", "o", "how to print", "table", "json")
}

// defaultAction is what verify and test take for the gates' where nothing is said.
const defaultAction = "deny"

// actionFlag adds --default-action.
func actionFlag(cmd *cobra.Command, c *choice, value string) {
	choose(cmd, c, value, "default-action", "", "what the gates do with images that no policy speaks of", "allow", "deny")
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
