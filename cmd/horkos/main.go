// Command horkos is the operator's program.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/horkos/horkos/version"
)

// Exit codes, the same for every verb.
const (
	exitAllowed    = 0 // what was asked for is so
	exitNotAllowed = 1 // it is not
	exitUndecided  = 2 // it could not be decided, or was asked wrongly
)

// exit is an error that only sets the exit code: what there is to say has been said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, command()))
}

func run(ctx context.Context, cmd *cobra.Command) int {
	err := cmd.ExecuteContext(ctx)
	var code exit
	switch {
	case err == nil:
		return exitAllowed
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "horkos:", err)
	return exitUndecided
}

func command() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "horkos",
		Short:         "Keep unattested images off Kubernetes nodes",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddGroup(&cobra.Group{ID: "decide", Title: "Deciding:"}, &cobra.Group{ID: "attest", Title: "Attesting:"})
	cmd.AddCommand(verifyCommand(), attestCommand(), versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.String())
			return err
		},
	}
}
