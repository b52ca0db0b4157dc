package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "completion bash|zsh|fish",
		GroupID: groupSelf,
		Short:   "Print a script that completes commands and flags in a shell",
		Example: `  # bash, which needs the package bash-completion
  horkos completion bash > /etc/bash_completion.d/horkos

  # zsh
  horkos completion zsh > "${fpath[1]}/_horkos"

  # fish
  horkos completion fish > ~/.config/fish/completions/horkos.fish`,
		Args:      cobra.MatchAll(one("name the shell: bash, zsh or fish", "horkos completion bash"), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return fmt.Errorf("no completion for %s", args[0])
		},
	}
}
