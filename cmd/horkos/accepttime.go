package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/state"
)

func acceptTimeCommand() *cobra.Command {
	var dir string
	var yes bool
	cmd := &cobra.Command{
		Use:   "accept-time",
		Short: "Have this node take its wall clock for the time though it has seen a later one",
		Long: `accept-time lets the time of a node go back. A node decides by the later of its wall clock and
the highest time that it has ever recorded, so that nobody brings back what has expired by
setting the clock back. When the clock was wrong and is right now, say so here, as root on the
node: the daemon then goes on from the wall clock.

It is good for one time, and for ten minutes: a daemon that starts later ignores it.`,
		Example: `  horkos policy accept-time

  # in a script
  horkos policy accept-time --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("only root may set back the time of a node")
			}
			return acceptTime(cmd, dir, yes)
		},
	}
	cmd.Flags().StringVar(&dir, "state-dir", defaultStateDir, "the `DIR` where the daemon keeps its state")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	// It fails only for a flag that is not there.
	_ = cmd.MarkFlagDirname("state-dir")
	return cmd
}

func acceptTime(cmd *cobra.Command, dir string, yes bool) error {
	highest, err := state.RecordedTime(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no time is recorded in %s: there is nothing to accept", dir)
	case err != nil:
		return err
	}
	wall := time.Now().UTC()
	behind := highest.Sub(wall)
	fmt.Fprintf(cmd.OutOrStdout(), "highest time recorded: %s\nwall clock:            %s\n", highest.Format(time.RFC3339), wall.Format(time.RFC3339))
	if behind <= 0 {
		return errors.New("the wall clock is not behind the highest time recorded: there is nothing to accept (the daemon records it once a minute)")
	}
	fmt.Fprintf(cmd.OutOrStdout(), "The wall clock is %s behind. Keys and attestations that have expired in between count again.\n", behind.Round(time.Second))
	if !yes {
		if err := agreed(cmd, "Is the wall clock right, and shall the time of this node go back?", "the highest time stays in force"); err != nil {
			return err
		}
	}
	// Whoever was asked may have taken their time.
	if err := state.AcceptTime(dir, time.Now()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), "Accepted: the daemon takes the wall clock for the time within seconds, or when it starts in the next ten minutes.")
	return err
}
