package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/objects"
)

// maxNamed bounds how many of the objects that are given up are named.
const maxNamed = 20

func acceptEmptyCommand() *cobra.Command {
	var state string
	var yes bool
	cmd := &cobra.Command{
		Use:   "accept-empty",
		Short: "Let go of the policies that stay in force on this node though its folder is empty",
		Long: `accept-empty gives up the last policies of a node's policy folder. When that folder is
emptied, unmounted or gone, what it held last stays in force: absence is not permission.
Who means it says so here, as root on the node: the daemon then takes the folder as it is.

It is good for the set that is kept now, and for one time: the daemon ignores it if another
set is in force when it looks, or if the folder holds policies, or files that it cannot read.`,
		Example: `  horkos policy accept-empty

  # in a script
  horkos policy accept-empty --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("only root may give up the policies of a node")
			}
			return acceptEmpty(cmd, state, yes)
		},
	}
	cmd.Flags().StringVar(&state, "state-dir", defaultStateDir, "the `DIR` where the daemon keeps its state")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	// It fails only for a flag that is not there.
	_ = cmd.MarkFlagDirname("state-dir")
	return cmd
}

func acceptEmpty(cmd *cobra.Command, state string, yes bool) error {
	kept, err := objects.Kept(state)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("nothing is kept in %s: there is nothing to give up", state)
	case err != nil:
		return err
	case kept.Objects == 0:
		return fmt.Errorf("the set kept in %s holds no object: there is nothing to give up", state)
	}
	describe(cmd.OutOrStdout(), kept)
	if !yes {
		if err := agreed(cmd, "Give them up on this node?", "they stay in force"); err != nil {
			return err
		}
	}
	if err := objects.AcceptEmpty(state, kept.Hash); err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), "Given up: the daemon takes the folder as it is when it looks next, within seconds, or when it starts.")
	return err
}

func describe(w io.Writer, kept objects.KeptInfo) {
	fmt.Fprintf(w, "These %d objects are kept (set %.12s):\n", kept.Objects, kept.Hash)
	for _, name := range kept.Names[:min(len(kept.Names), maxNamed)] {
		fmt.Fprintf(w, "  %s\n", printable(name))
	}
	if n := len(kept.Names) - maxNamed; n > 0 {
		fmt.Fprintf(w, "  and %d more\n", n)
	}
	if !kept.Absent {
		fmt.Fprintln(w, "The folder held policies when they were kept: giving them up counts only if it holds none when the daemon looks.")
	}
}
