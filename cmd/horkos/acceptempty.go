package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/objects"
)

// maxNamed bounds how many of the objects that are given up are named.
const maxNamed = 20

func acceptEmptyCommand() *cobra.Command {
	var state, origin string
	var yes bool
	cmd := &cobra.Command{
		Use:   "accept-empty",
		Short: "Let go of the policies that stay in force on this node though none are there any more",
		Long: `accept-empty gives up the last policies of a node's policy folder, or of its cluster. When
the folder is emptied, unmounted or gone, what it held last stays in force: absence is not
permission. So it is when the cluster's last policy is deleted, when the objects of a kind
go with their CustomResourceDefinition, or when the cluster is restored from an older copy.
Who means it says so here, as root on the node: the daemon then takes what is there as it is.

It is good for the set that is kept now, and for one time: the daemon ignores it if another
set is in force when it looks, if the folder holds policies, or files that it cannot read, or
if it does not know what the cluster holds.`,
		Example: `  horkos policy accept-empty
  horkos policy accept-empty --origin cluster

  # in a script
  horkos policy accept-empty --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("only root may give up the policies of a node")
			}
			if o := crds.Origin(origin); o != crds.Folder && o != crds.Cluster {
				return fmt.Errorf("--origin: want folder or cluster, not %q", origin)
			}
			return acceptEmpty(cmd, state, crds.Origin(origin), yes)
		},
	}
	cmd.Flags().StringVar(&state, "state-dir", defaultStateDir, "the `DIR` where the daemon keeps its state")
	cmd.Flags().StringVar(&origin, "origin", string(crds.Folder), "whose policies: `folder|cluster`")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	// It fails only for a flag that is not there.
	_ = cmd.MarkFlagDirname("state-dir")
	return cmd
}

func acceptEmpty(cmd *cobra.Command, state string, origin crds.Origin, yes bool) error {
	kept, err := objects.Kept(state, origin)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("nothing of the %s is kept in %s: there is nothing to give up", origin, state)
	case err != nil:
		return err
	case kept.Objects == 0:
		return fmt.Errorf("the set kept in %s holds no object: there is nothing to give up", state)
	}
	describe(cmd.OutOrStdout(), origin, kept)
	if !yes {
		if err := agreed(cmd, "Give them up on this node?", "they stay in force"); err != nil {
			return err
		}
	}
	if err := objects.AcceptEmpty(state, origin, kept.Hash); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "Given up: the daemon takes the %s as it is when it looks next, within seconds, or when it starts.\n", origin)
	return err
}

func describe(w io.Writer, origin crds.Origin, kept objects.KeptInfo) {
	fmt.Fprintf(w, "These %d objects are kept (set %.12s):\n", kept.Objects, kept.Hash)
	for _, name := range kept.Names[:min(len(kept.Names), maxNamed)] {
		fmt.Fprintf(w, "  %s\n", printable(name))
	}
	if n := len(kept.Names) - maxNamed; n > 0 {
		fmt.Fprintf(w, "  and %d more\n", n)
	}
	if !kept.Absent && origin == crds.Folder {
		fmt.Fprintln(w, "The folder held policies when they were kept: giving them up counts only if it holds none when the daemon looks.")
	}
}
