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

// Groups of verbs in the help.
const (
	groupDecide  = "decide"
	groupAttest  = "attest"
	groupCluster = "cluster"
	groupSelf    = "self"
)

func command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "horkos",
		Short: "Keep unattested images off Kubernetes nodes",
		Long: `horkos is the operator's program: it attests images, and tells what the gates will decide
about them, from policies and attestations in files.

Exit codes: 0 when what was asked for is so, 1 when it is not, 2 when it could not be
decided or the command was used wrongly.`,
		Example: `  # write policies, and look for what is wrong with them
  horkos policy check policies/

  # attest an image, and see that it may run
  horkos attest registry.example.com/shop/cart@sha256:... --pkix-key release.pem --merge policies/cart.yaml
  horkos verify registry.example.com/shop/cart@sha256:... -n shop --policy policies/ --explain`,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddGroup(
		&cobra.Group{ID: groupDecide, Title: "Deciding:"},
		&cobra.Group{ID: groupAttest, Title: "Attesting:"},
		&cobra.Group{ID: groupCluster, Title: "In a cluster:"},
		&cobra.Group{ID: groupSelf, Title: "The program itself:"},
	)
	cmd.SetHelpCommand(helpCommand())
	cmd.SetHelpCommandGroupID(groupSelf)
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(verifyCommand(), policyCommand(), auditCommand(), attestCommand(), controllerCommand(), webhookCommand(), breakglassCommand(), statusCommand(), completionCommand(), versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		GroupID: groupSelf,
		Short:   "Print the version",
		Example: "  horkos version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.String())
			return err
		},
	}
}
