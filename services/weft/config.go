package main

import (
	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/config"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Explain the configuration",
		Long:    "Explain the configuration. 'weft check --print' shows the one in effect.",
		GroupID: groupTools,
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "example",
		Short:   "Print a configuration file with every key, its default and what it means",
		Long:    "Print a configuration file with every key, its default and what it means, and samples of sources and of an inlet.",
		Example: "  weft config example > weft.yaml",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := config.Example()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	})
	return cmd
}
