package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/config"
)

// app is what every command shares.
type app struct {
	configFile string // --config
	environ    []string
}

// load reads the configuration: --config, else WEFT_CONFIG, else no file; then the environment. change is of defaults.
func (a *app) load(change ...func(*config.Config)) (config.Config, error) {
	path := a.configFile
	if path == "" {
		path = a.getenv(config.EnvFile)
	}
	return config.Load(path, a.environ, change...)
}

// alone is what differs for a collector that no load balancer looks at: nothing is waited for at its end.
func alone(cfg *config.Config) { cfg.Collector.DrainDelay = 0 }

func (a *app) getenv(name string) string {
	for _, entry := range a.environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// setenv has a flag win over the environment.
func (a *app) setenv(name, value string) {
	others := slices.DeleteFunc(slices.Clone(a.environ), func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	a.environ = append(others, name+"="+value)
}

// usageError is a wrong command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errSilent ends the program with status 1 where the command has said all itself.
var errSilent = errors.New("reported already")

// args makes what a cobra check finds a usageError that names the help.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
		}
		return nil
	}
}

// unknownCommand refuses arguments of a command that only has subcommands.
func unknownCommand(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return nil
	}
	const mostEdits = 2 // a typing error
	cmd.SuggestionsMinimumDistance = mostEdits
	hint := ""
	if near := cmd.SuggestionsFor(given[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{fmt.Errorf("unknown command %q%s; see '%s --help'", given[0], hint, cmd.CommandPath())}
}

// self is how to start this binary again.
func self() ([]string, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this binary: %w", err)
	}
	return []string{path}, nil
}
