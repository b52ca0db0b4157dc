package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// agreed asks whoever is at the terminal a question, and is an error for anything but yes:
// the text of otherwise. Where nobody can be asked it says how to do without.
func agreed(cmd *cobra.Command, question, otherwise string) error {
	if !interactive(cmd.InOrStdin()) {
		return errors.New("nobody can be asked here: to go on, add --yes")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s Type yes: ", question)
	answer, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.New(otherwise)
	}
	return nil
}

// interactive tells whether there may be somebody at a terminal.
func interactive(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
