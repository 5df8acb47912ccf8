package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/suppression"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/identity-stitcher/erase"
)

func newIdentityEraseCommand(a *app) *cobra.Command {
	var flags operatorFlags
	var dryRun, sure bool
	cmd := &cobra.Command{
		Use:   "erase ID|TYPE:VALUE",
		Short: "Forget a person: suppress, delete, and look again",
		Long: `Forget the person whom an identifier belongs to. First it is shown what there is of the person. Then all identifiers are
suppressed (events that name one are counted and not stored, and nothing is sent to the person), the person is taken out of the
graph, profile and carts are dropped, and the rows in ClickHouse are deleted, rejected events included. It is done when
ClickHouse was asked again and has no row left; the counts of what there was are kept with the command.

What Kafka holds stays until its retention: docs/erasure.md. Do not write personal data into --reason: it is kept.`,
		Example: `  weft identity erase email:ann@example.com --reason "ticket 4711" --dry-run
  weft identity erase user_id:u1 --reason "ticket 4711" --yes`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, texts []string) error {
			return withOperator(cmd, a, &flags, func(ctx context.Context, o *operator) error {
				if flags.reason == "" && !dryRun {
					return usageError{errors.New("--reason is missing: say why, it is kept with the command; or --dry-run to see what there is")}
				}
				ids, err := o.evidence(texts...)
				if err != nil {
					return err
				}
				c, err := o.erasure(ctx, ids[0])
				if err != nil {
					return err
				}
				counts, err := o.stored(ctx, c.Members)
				if err != nil {
					return err
				}
				if err := printStored(cmd.OutOrStdout(), c, counts, flags.asJSON); err != nil || dryRun {
					return err
				}
				if !sure {
					if ok, err := yes(cmd.InOrStdin(), cmd.ErrOrStderr(), "Erase? It can not be taken back."); err != nil || !ok {
						return err
					}
				}
				return o.give(ctx, cmd.OutOrStdout(), c)
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what there is of the person, and change nothing")
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	return cmd
}

// erasure is the command that forgets whom an identifier belongs to.
func (o *operator) erasure(ctx context.Context, id identity.Evidence) (identity.Command, error) {
	c := identity.Command{Kind: identity.CommandErase}
	node, err := identity.ParseNode(id.Node)
	if err != nil {
		return c, err
	}
	members, err := identity.Members(ctx, o.graph, node)
	if err != nil {
		return c, err
	}
	for _, m := range members {
		c.Members = append(c.Members, m.String())
	}
	c.Person = c.Members[0]
	return c, nil
}

// stored counts the rows of a person in ClickHouse.
func (o *operator) stored(ctx context.Context, members []string) (map[string]int, error) {
	if len(o.cfg.ClickHouse.Addresses) == 0 {
		return nil, missing("clickhouse.addresses")
	}
	wh, err := warehouse.Open(o.cfg.ClickHouse)
	if err != nil {
		return nil, err
	}
	defer func() { _ = wh.Close() }() // was only read
	x := &warehouse.Erasure{CommandsTopic: o.topics.IdentitiesCommands()}
	for _, m := range members {
		n, err := uuid.Parse(m)
		if err != nil {
			return nil, fmt.Errorf("member %s: %w", m, err)
		}
		x.Members = append(x.Members, n)
	}
	return erase.Counts(ctx, wh, o.rules, x)
}

func printStored(out io.Writer, c identity.Command, counts map[string]int, asJSON bool) error {
	if asJSON {
		return explain.JSON(out, struct {
			Person      string         `json:"person"`
			Identifiers int            `json:"identifiers"`
			Rows        map[string]int `json:"rows"`
		}{c.Person, len(c.Members), counts})
	}
	if _, err := fmt.Fprintf(out, "person %s: %d identifiers\n", c.Person, len(c.Members)); err != nil {
		return err
	}
	for _, table := range sortedKeys(counts) {
		if _, err := fmt.Fprintf(out, "  %s: %d rows\n", table, counts[table]); err != nil {
			return err
		}
	}
	return nil
}

func newIdentityErasedCommand(a *app) *cobra.Command {
	var flags operatorFlags
	cmd := &cobra.Command{
		Use:   "erased TYPE:VALUE...",
		Short: "Check that nothing is left of identifiers that were erased",
		Long: `Look again in every store that is searched by identifier: that each is on the register of erased people, that the graph ties
it to nobody, and that ClickHouse has no row of it, rejected events included. Exit status 1 if anything is found.`,
		Example: `  weft identity erased email:ann@example.com user_id:u1`,
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, texts []string) error {
			return withOperator(cmd, a, &flags, func(ctx context.Context, o *operator) error {
				ids, err := o.evidence(texts...)
				if err != nil {
					return err
				}
				on, err := suppression.NewRegister(o.store, o.topics.Prefix).All(ctx)
				if err != nil {
					return err
				}
				left := false
				for i, id := range ids {
					faults, err := o.leftOf(ctx, id, on)
					if err != nil {
						return err
					}
					for _, f := range faults {
						left = true
						fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", texts[i], f)
					}
					if len(faults) == 0 {
						fmt.Fprintf(cmd.OutOrStdout(), "%s: erased, nothing is left\n", texts[i])
					}
				}
				if left {
					return errSilent
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&flags.brand, "brand", "", "the brand that knows the identifiers, where their type belongs to brands (scope in the rules file)")
	return cmd
}

// leftOf says what is left of an identifier.
func (o *operator) leftOf(ctx context.Context, id identity.Evidence, on map[identity.Node]struct{}) ([]string, error) {
	node, err := identity.ParseNode(id.Node)
	if err != nil {
		return nil, err
	}
	var faults []string
	if _, ok := on[node]; !ok {
		faults = append(faults, "it is not on the register of erased people")
	}
	members, err := identity.Members(ctx, o.graph, node)
	if err != nil {
		return nil, err
	}
	// Behind an erasure an identifier leads to a node of its own, and to nobody else's.
	if !members[0].IsPart() || len(members) != 2 {
		faults = append(faults, fmt.Sprintf("the graph has it with %d nodes of one person", len(members)))
	}
	texts := make([]string, len(members))
	for i, m := range members {
		texts[i] = m.String()
	}
	counts, err := o.stored(ctx, texts)
	if err != nil {
		return nil, err
	}
	for _, table := range sortedKeys(counts) {
		faults = append(faults, fmt.Sprintf("%d rows in %s", counts[table], table))
	}
	return faults, nil
}

func newIdentityUnsuppressCommand(a *app) *cobra.Command {
	var flags operatorFlags
	cmd := &cobra.Command{
		Use:   "unsuppress TYPE:VALUE...",
		Short: "Let identifiers that were erased come in again",
		Long: `Take identifiers off the register of erased people, for somebody who comes back. Their next events are stored, and belong to a
new person: nothing of what was erased comes back. Name all identifiers that events may carry: an event is left out as long as one
of them is on the register.`,
		Example: `  weft identity unsuppress email:ann@example.com user_id:u1 --reason "she has registered again"`,
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, texts []string) error {
			return withOperator(cmd, a, &flags, func(ctx context.Context, o *operator) error {
				ids, err := o.evidence(texts...)
				if err != nil {
					return err
				}
				c := identity.Command{Kind: identity.CommandUnsuppress}
				for _, id := range ids { // nodes alone: the command is kept, and holds no identifier
					c.Members = append(c.Members, id.Node)
				}
				return o.give(ctx, cmd.OutOrStdout(), c)
			})
		},
	}
	flags.add(cmd)
	return cmd
}
