package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// identityTimeout bounds one question about a person.
const identityTimeout = 2 * time.Minute

func newIdentityCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Ask who somebody is, and why, and take it back: show, why, split",
		Long: `Ask who an identifier belongs to, which links made these identifiers one person, and when.

Somebody is named by a profile id, current or former, or by TYPE:VALUE as it stands in events: email:ann@example.com,
phone:"+48 123 456 789", user_id:u1, anonymous_id:5e1f0c3a. Values are normalised as those of events are, so the letter case
of an e-mail, or the blanks of a phone number, do not matter.

The answers come from ClickHouse, which has a link seconds after the event that made it. The same is to be had over HTTP:
docs/http.md. Needs clickhouse.addresses, and the identity.key_file of the services.`,
		GroupID: groupTools,
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newIdentityShowCommand(a), newIdentityWhyCommand(a), newIdentityHistoryCommand(a), newIdentityRulesCommand(a),
		newIdentityEraseCommand(a), newIdentityErasedCommand(a), newIdentityUnsuppressCommand(a),
		newIdentitySplitCommand(a), newIdentityLinkCommand(a), newIdentityBlockCommand(a), newIdentityUnblockCommand(a), newIdentityReleaseCommand(a),
		newIdentityRejectCommand(a), newIdentityCommandsCommand(a), newIdentitySuspendedCommand(a))
	return cmd
}

// printer is an answer for a terminal.
type printer interface{ Print(out io.Writer) error }

// identityCommand completes a command that asks about somebody. The answer is printed, or written as JSON.
func identityCommand(a *app, cmd *cobra.Command, ask func(ctx context.Context, e *explain.Explainer, ids []explain.Identifier) (printer, error)) *cobra.Command {
	var asJSON bool
	var brand string
	cmd.Flags().StringVar(&brand, "brand", "", "the brand that knows the identifier, where its type belongs to brands (scope in the rules file)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object, as the HTTP API gives it")
	cmd.RunE = func(cmd *cobra.Command, texts []string) error {
		return withExplainer(cmd.Context(), a, func(ctx context.Context, e *explain.Explainer) error {
			ids := make([]explain.Identifier, len(texts))
			for i, text := range texts {
				var err error
				if ids[i], err = e.Parse(brand, text); err != nil {
					return usageError{err}
				}
			}
			answer, err := ask(ctx, e, ids)
			if err != nil {
				return err
			}
			if asJSON {
				return explain.JSON(cmd.OutOrStdout(), answer)
			}
			return answer.Print(cmd.OutOrStdout())
		})
	}
	return cmd
}

func newIdentityShowCommand(a *app) *cobra.Command {
	return identityCommand(a, &cobra.Command{
		Use:   "show ID|TYPE:VALUE",
		Short: "Show who an identifier belongs to, with all that is linked to it",
		Long: `Show the person that an identifier belongs to today: every identifier with when it was first seen, the link that first tied it
to another, and the event, source and rule of that; the profile ids of the past that lead here, with how many events are
stored under each.`,
		Example: `  weft identity show email:ann@example.com
  weft identity show 10d3b0f2-5c1e-8a44-9d0e-6f3f0a7b2c11 --json`,
		Args: args(cobra.ExactArgs(1)),
	}, func(ctx context.Context, e *explain.Explainer, ids []explain.Identifier) (printer, error) {
		return e.Show(ctx, ids[0])
	})
}

func newIdentityWhyCommand(a *app) *cobra.Command {
	return identityCommand(a, &cobra.Command{
		Use:   "why ID|TYPE:VALUE ID|TYPE:VALUE",
		Short: "Explain why two identifiers are one person",
		Long: `Show the chain of links between two identifiers: each with the two identifiers that one event carried, the event, its source,
the rule, and the time. Or say that they are not one person.`,
		Example: `  weft identity why email:ann@example.com anonymous_id:5e1f0c3a`,
		Args:    args(cobra.ExactArgs(2)),
	}, func(ctx context.Context, e *explain.Explainer, ids []explain.Identifier) (printer, error) {
		return e.Why(ctx, ids[0], ids[1])
	})
}

func newIdentityHistoryCommand(a *app) *cobra.Command {
	return identityCommand(a, &cobra.Command{
		Use:     "history ID|TYPE:VALUE",
		Short:   "Show the merges that made a person, over time",
		Long:    "Show the merges that made the person whom an identifier belongs to, by the time of the event that caused each.",
		Example: `  weft identity history user_id:u1`,
		Args:    args(cobra.ExactArgs(1)),
	}, func(ctx context.Context, e *explain.Explainer, ids []explain.Identifier) (printer, error) {
		return e.History(ctx, ids[0])
	})
}

// withExplainer opens what questions about people need.
func withExplainer(ctx context.Context, a *app, f func(ctx context.Context, e *explain.Explainer) error) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if len(cfg.ClickHouse.Addresses) == 0 {
		return missing("clickhouse.addresses")
	}
	rules, err := identityRules(cfg)
	if err != nil {
		return err
	}
	ctx, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	wh, err := warehouse.Open(cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer func() { _ = wh.Close() }() // was only read
	return f(ctx, explain.New(wh, rules))
}

// identityRules is the rules of the services, with their key: a new one would find nobody.
func identityRules(cfg config.Config) (*identity.Rules, error) {
	if _, err := os.Stat(cfg.Identity.KeyFile); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("identity.key_file: %s is not there: give the file that the services use", cfg.Identity.KeyFile)
	}
	key, text, err := cfg.Identity.Load()
	if err != nil {
		return nil, err
	}
	rules, err := identity.NewRules(key, identity.Options{DefaultRegion: cfg.Identity.DefaultRegion, File: cfg.Identity.RulesFile, Text: text})
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return rules, nil
}
