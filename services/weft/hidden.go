package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// The two commands below are how this binary starts itself; main hands them to embedded.Child before anything else, so
// that only their help is ever asked here.

func newGuardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard -- CMD ARGS...",
		Short:  "Run a command and end it when the starter ends (used by weft itself)",
		Hidden: true,
		Long: `Run a command until descriptor 3, a pipe whose other end the starter holds, is closed: on purpose, or because the
starter was killed. The command gets SIGTERM, and SIGKILL ten seconds later.`,
		RunE: runByChild,
	}
}

func newClickHouseCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "clickhouse-server --library PATH --data DIR --tcp PORT --http PORT",
		Short:  "Run ClickHouse from libchdb.so (used by weft itself)",
		Hidden: true,
		Long:   "Serve ClickHouse's native and HTTP protocols on loopback from libchdb.so, until SIGTERM.",
		RunE:   runByChild,
	}
}

func runByChild(*cobra.Command, []string) error {
	return errors.New("embedded.Child runs this command")
}
