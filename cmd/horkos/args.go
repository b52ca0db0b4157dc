package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// some wants at least one argument, and says what and how.
func some(what, example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s, such as: %s", what, example)
		}
		return nil
	}
}

// one wants exactly one argument.
func one(what, example string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("%d arguments, want one: %s, such as: %s", len(args), what, example)
		}
		return some(what, example)(cmd, args)
	}
}

// verbOf wants no argument of a command that has only verbs, and tells which verb may have been meant.
func verbOf(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if meant := cmd.SuggestionsFor(args[0]); len(meant) > 0 {
		text += "\n\nDid you mean this?\n\t" + strings.Join(meant, "\n\t") + "\n"
	}
	return fmt.Errorf("%s", text)
}

// helpCommand is the help of cobra, but that a command that is none is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about a command",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var verbs []string
			if of, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, c := range of.Commands() {
					if c.IsAvailableCommand() {
						verbs = append(verbs, c.Name())
					}
				}
			}
			return verbs, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if err := verbOf(of, rest); err != nil {
				return err
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}
