package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/daemon"
)

// serviceCommand runs one service in a process of its own.
func serviceCommand(a *app, cmd *cobra.Command, n needs, makeService maker) *cobra.Command {
	cmd.GroupID = groupServices
	cmd.Args = args(cobra.NoArgs)
	cmd.Long += `

Runs until SIGINT or SIGTERM. /healthz, /readyz, /metrics and /debug/pprof are on admin.listen; logs go to standard
error. Any number of processes may run side by side.`
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := a.load()
		if err != nil {
			return err
		}
		opt := daemon.Options{Config: cfg, Name: cmd.Name(), Version: version()}
		return daemon.Run(cmd.Context(), opt, func(_ context.Context, f *daemon.Frame) ([]daemon.Named, error) {
			c, err := connect(f, cfg, n)
			if err != nil {
				return nil, err
			}
			s, err := makeService(f, cfg, c)
			if err != nil {
				return nil, err
			}
			return []daemon.Named{s}, nil
		})
	}
	return cmd
}
