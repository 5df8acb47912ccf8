// Command weft is the whole of Weft: every service, everything in one process ('weft up'), and the tools around them.
//
// It owns: the command line, and how the parts are put together from configuration. It guarantees that an error is
// printed once, and the exit statuses: 0 done, 1 an error, 2 a wrong command line. It must not know how a service works.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/daemon"
	"github.com/weft-cdp/weft/pkg/embedded"
)

// Exit statuses.
const (
	exitError = 1
	exitUsage = 2
)

func main() {
	// A guard or an embedded ClickHouse is this binary too, started by itself.
	if code, ok := embedded.Child(os.Args[1:]); ok {
		os.Exit(code)
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program with its surroundings as arguments, and returns its exit status.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := newRootCommand(&app{environ: environ})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	var reported daemon.Reported
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(stderr, "weft: %v\n", err) // nobody is left to tell
		return exitUsage
	case !errors.As(err, &reported) && !errors.Is(err, errSilent):
		_, _ = fmt.Fprintf(stderr, "weft: %v\n", err)
	}
	return exitError
}

// Groups of commands in the help.
const (
	groupRun      = "run"
	groupServices = "services"
	groupTools    = "tools"
)

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "A streaming customer data platform",
		Long: `Weft takes events of shops, apps, tills and CRMs over HTTP or Kafka, works out which identifiers are the same
person, keeps a live profile of each person, sends (or deliberately does not send) messages such as an
abandoned-cart reminder, and gives analysts the whole journey in ClickHouse.

Start with 'weft demo', or 'weft up' for a Weft of your own on this machine; neither needs a server. Configuration is
one YAML file (--config, or WEFT_CONFIG) and the environment; 'weft config example' prints all of it, explained.

Exit status: 0 done, 1 an error, 2 a wrong command line.`,
		Example: `  weft up                                all of it in one process, on parts of its own
  weft check --config weft.yaml          is the configuration right, and is everything there?
  weft help collector                    what a command does`,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().StringVarP(&a.configFile, "config", "c", "", "configuration file (default: WEFT_CONFIG, else none)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
	})
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Everything at once:"},
		&cobra.Group{ID: groupServices, Title: "The services, one process each:"},
		&cobra.Group{ID: groupTools, Title: "Tools:"},
	)
	root.SetHelpCommandGroupID(groupTools)
	root.SetCompletionCommandGroupID(groupTools)
	root.AddCommand(commands(a)...)
	return root
}
