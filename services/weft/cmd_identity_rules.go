package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/pkg/identity"
)

func newIdentityRulesCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Check and try out a rules file",
		Long:  "Check and try out a rules file: which identifiers events carry, and how each is written. docs/identity.md has the keys.",
		Args:  unknownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newIdentityRulesTestCommand(a))
	return cmd
}

func newIdentityRulesTestCommand(a *app) *cobra.Command {
	var source, brand string
	var trusted bool
	cmd := &cobra.Command{
		Use:   "test RULES EVENT",
		Short: "Print the identifiers that a rules file finds in events",
		Long: `Print the identifiers that a rules file finds in events, in the order of their ids: type, normalised value and node, the id
that a profile has whose first identifier it is, and whether it is known, a device or weak; or why one is ignored; and what the
event is for the devices in it: a log-in, a log-out, or without a name. RULES is a rules file, or 'shipped'. EVENT has events
as JSON objects, one after another; - is the standard input. Nothing is connected to. The nodes are those of this deployment if
its identity.key_file is there, else of a key of zeros, which is told. identity.default_region counts.
Exit status 0 if every event names somebody, else 1.`,
		Example: `  weft identity rules test rules.yaml event.json
  weft identity rules test shipped event.json --trusted --brand shoes`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, names []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			key, own, err := keyForTrial(cfg.Identity)
			if err != nil {
				return err
			}
			opt := identity.Options{DefaultRegion: cfg.Identity.DefaultRegion}
			if names[0] != "shipped" {
				opt.File = names[0]
				if opt.Text, err = (config.Identity{RulesFile: names[0]}).Rules(); err != nil {
					return err
				}
			}
			rules, err := identity.NewRules(key, opt)
			if err != nil {
				return err
			}
			sample, err := readSample(cmd.InOrStdin(), names[1])
			if err != nil {
				return err
			}
			if !own {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s is not there: the nodes are those of a key of zeros\n", cfg.Identity.KeyFile)
			}
			return printIdentifiers(cmd.OutOrStdout(), rules, sample, event.Meta{Source: source, Brand: brand, Trusted: trusted})
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "name of the source that the events come from")
	cmd.Flags().StringVar(&brand, "brand", config.Defaults().Collector.Brand, "brand of the source")
	cmd.Flags().BoolVar(&trusted, "trusted", false, "the source is trusted")
	return cmd
}

// keyForTrial is the deployment's key, or zeros; none is made.
func keyForTrial(cfg config.Identity) (key []byte, own bool, err error) {
	if _, err := os.Stat(cfg.KeyFile); errors.Is(err, fs.ErrNotExist) {
		return make([]byte, identity.KeyBytes), false, nil
	}
	if key, err = config.LoadOrCreateSecret(cfg.KeyFile); err != nil {
		return nil, false, fmt.Errorf("identity.key_file: %w", err)
	}
	return key, true, nil
}

func printIdentifiers(out io.Writer, rules *identity.Rules, sample []byte, m event.Meta) error {
	var unnamed, n int
	err := eachRecord(config.FormatJSON, sample, func(value []byte, line int) error {
		e, err := event.Decode(bytes.Clone(value), m)
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		n++
		ids, ignored := rules.Extract(e)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "line %d: %s %s\n", line, e.Type, e.Name)
		for _, id := range ids {
			fmt.Fprintf(w, "  %s\t%s\t%s%s\n", id.Type, id.Value, id.Node, trait(rules.TypeOf(id.Node)))
		}
		for _, x := range ignored {
			fmt.Fprintf(w, "  %s\t%s\tignored: %s\n", x.Type, x.Value, x.Reason)
		}
		if text := deviceFacts(rules, e, ids); text != "" {
			fmt.Fprintln(w, "  "+text)
		}
		if len(ids) == 0 {
			unnamed++
			fmt.Fprintln(w, "  names nobody: a profile of its own")
		}
		return w.Flush()
	})
	switch {
	case err != nil:
		return err
	case n == 0:
		return errors.New("there is no event in the sample")
	case unnamed > 0:
		return errSilent
	}
	return nil
}

// trait is what a type is, beside being a type.
func trait(t *identity.Type) string {
	switch {
	case t.Known:
		return " known"
	case t.Device:
		return " device"
	case t.Weak:
		return " weak"
	}
	return ""
}

// deviceFacts says what an event is for the devices in it; empty: it has none.
func deviceFacts(rules *identity.Rules, e *event.Event, ids []identity.Identifier) string {
	known, device := false, false
	for _, id := range ids {
		t := rules.TypeOf(id.Node)
		known, device = known || t.Known, device || t.Device
	}
	d := rules.Devices()
	switch {
	case !device:
		return ""
	case rules.LogsOut(e) && d.KeepOwner:
		return "a log-out: ends the slice of a shared device; a device of one person stays that person's"
	case rules.LogsOut(e):
		return "a log-out: ends the slice of a shared device; on a device of one person, what follows without a name is nobody's"
	case known:
		return "a log-in: if the device is somebody else's, it is shared from now on"
	}
	return fmt.Sprintf("without a name: on a shared device it belongs to the device's slice of time, which ends after %s of silence", d.Idle)
}

// checkRules reads the configured rules file.
func checkRules(cfg config.Identity) (string, error) {
	text, err := cfg.Rules()
	if err != nil {
		return "", err
	}
	if _, err := identity.NewRules(make([]byte, identity.KeyBytes), identity.Options{File: cfg.RulesFile, Text: text}); err != nil {
		return "", err
	}
	return cfg.RulesFile + ": no faults", nil
}
