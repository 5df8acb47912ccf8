package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

// suspendedShown is how many suspended links a list has if nobody says otherwise; maxSuspended is the most that one command
// answers for.
const (
	suspendedShown = 100
	maxSuspended   = 10_000
)

// suspendedFlags say which suspended links are meant.
type suspendedFlags struct {
	filter warehouse.SuspendedFilter
	since  time.Duration
}

func (f *suspendedFlags) add(cmd *cobra.Command, limit int) {
	cmd.Flags().StringVar(&f.filter.Cap, "cap", "", "of one cap of identity.governor, such as links_per_identifier")
	cmd.Flags().StringVar(&f.filter.Source, "source", "", "of one source")
	cmd.Flags().StringVar(&f.filter.Type, "type", "", "with an identifier of this type")
	cmd.Flags().DurationVar(&f.since, "since", 0, "stopped within this time, such as 24h (0: ever)")
	cmd.Flags().IntVar(&f.filter.Limit, "limit", limit, "at most so many, the last first")
}

func (f *suspendedFlags) read() (warehouse.SuspendedFilter, error) {
	out := f.filter
	if out.Limit <= 0 || out.Limit > maxSuspended {
		return out, usageError{fmt.Errorf("--limit: %d is not 1 to %d", out.Limit, maxSuspended)}
	}
	if f.since > 0 {
		out.Since = time.Now().Add(-f.since)
	}
	return out, nil
}

func newIdentitySuspendedCommand(a *app) *cobra.Command {
	var flags suspendedFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "suspended",
		Short: "List links that a cap of the governor has stopped, and release or reject them",
		Long: `List the pairs of identifiers that a cap of identity.governor keeps apart: by which cap, of which source, and what has become
of each: open, released or rejected by an operator, or joined by other links. The list comes from ClickHouse.`,
		Example: `  weft identity suspended --cap links_per_identifier --since 24h`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := flags.read()
			if err != nil {
				return err
			}
			return withExplainer(cmd.Context(), a, func(ctx context.Context, e *explain.Explainer) error {
				answer, err := e.Suspended(ctx, f)
				if err != nil {
					return err
				}
				if asJSON {
					return explain.JSON(cmd.OutOrStdout(), answer)
				}
				return answer.Print(cmd.OutOrStdout())
			})
		},
	}
	flags.add(cmd, suspendedShown)
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object, as the HTTP API gives it")
	cmd.AddCommand(
		newSuspendedAnswerCommand(a, identity.CommandLink, &cobra.Command{Use: "release [ID...]", Short: "Make one person of the two identifiers of suspended links"}),
		newSuspendedAnswerCommand(a, identity.CommandReject, &cobra.Command{Use: "reject [ID...]", Short: "Say that the two identifiers of suspended links are not one person"}),
	)
	return cmd
}

// newSuspendedAnswerCommand releases or rejects: each link is a command of its own, as 'weft identity link' and 'reject' give.
func newSuspendedAnswerCommand(a *app, kind identity.CommandKind, cmd *cobra.Command) *cobra.Command {
	var flags operatorFlags
	var which suspendedFlags
	var sure bool
	name := cmd.Name()
	cmd.Long = cmd.Short + `:
those with the given ids, or all open ones of a cap, a source or a type. Each is a command of its own, carried out as
'weft identity commands' tells.`
	cmd.Example = `  weft identity suspended ` + name + ` --cap merges_per_minute --source till --reason "checked with the shop"`
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		f, err := which.read()
		if err != nil {
			return err
		}
		if len(ids) == 0 && f.Cap == "" && f.Source == "" && f.Type == "" {
			return usageError{errors.New("say which: ids, or --cap, --source or --type")}
		}
		var open []explain.SuspendedLink
		err = withExplainer(cmd.Context(), a, func(ctx context.Context, e *explain.Explainer) error {
			all, err := e.Suspended(ctx, f)
			if err == nil {
				open, err = chosen(all.Links, ids)
			}
			return err
		})
		if err != nil {
			return err
		}
		if len(ids) == 0 && !sure {
			ok, err := yes(cmd.InOrStdin(), cmd.OutOrStdout(), fmt.Sprintf("%s %d suspended links?", name, len(open)))
			if err != nil || !ok {
				return err
			}
		}
		return withOperator(cmd, a, &flags, func(ctx context.Context, o *operator) error {
			var errs []error
			for _, l := range open {
				errs = append(errs, o.give(ctx, cmd.OutOrStdout(), answerTo(kind, l)))
				if ctx.Err() != nil {
					break
				}
			}
			return errors.Join(errs...)
		})
	}
	flags.add(cmd)
	which.add(cmd, maxSuspended)
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return cmd
}

// chosen is the links with these ids, whatever became of them, or all that are open.
func chosen(all []explain.SuspendedLink, ids []string) ([]explain.SuspendedLink, error) {
	if len(ids) == 0 {
		return slices.DeleteFunc(all, func(l explain.SuspendedLink) bool { return l.State != explain.StateOpen }), nil
	}
	out := make([]explain.SuspendedLink, 0, len(ids))
	for _, id := range ids {
		i := slices.IndexFunc(all, func(l explain.SuspendedLink) bool { return l.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("no link with the id %s is suspended", id)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// answerTo is the command that answers for a suspended link.
func answerTo(kind identity.CommandKind, l explain.SuspendedLink) identity.Command {
	c := identity.Command{Kind: kind}
	for _, id := range l.Between {
		c.Identifiers = append(c.Identifiers, identity.Evidence{Type: id.Type, Value: id.Value, Node: id.ID})
	}
	return c
}
