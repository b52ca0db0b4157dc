package main

import "github.com/spf13/cobra"

// defaultStateDir is where horkos-node keeps its state if it is not told otherwise.
const defaultStateDir = "/var/lib/horkos"

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "policy",
		GroupID: groupDecide,
		Short:   "Check and test policies, and let go of a set of them or of a time on a node",
		Example: `  # every problem of the policies, with file and line
  horkos policy check policies/

  # decide your own cases
  horkos policy test cases/`,
		Args: verbOf,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(policyCheckCommand(), policyTestCommand(), acceptEmptyCommand(), acceptTimeCommand())
	return cmd
}
