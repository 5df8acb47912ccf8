package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/undo"
)

// previewFlags say what becomes of a preview.
type previewFlags struct{ yes, dryRun bool }

func (f *previewFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.yes, "yes", false, "carry it out without asking")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would be, and stop")
}

func newIdentitySplitCommand(a *app) *cobra.Command {
	var flags operatorFlags
	var preview previewFlags
	var link bool
	cmd := &cobra.Command{
		Use:   "split TYPE:VALUE | --link TYPE:VALUE TYPE:VALUE",
		Short: "Take a person apart: an identifier, or everything one link brought in",
		Long: `Take an identifier out of its person, or, with --link, undo what ties two identifiers to each other. What only hung together
through it falls apart, too. Every stored event is told again to the person whose it is then, so that profiles, carts, journeys
and ClickHouse are as if the parts had never met. No message is sent again, and none is decided meanwhile.

A preview comes first: the identifiers, events, orders, revenue, carts and waiting journeys of each part, as they will be.
The parts do not become one person again, whatever events come, until 'weft identity release'. If the person has changed
since the preview the command is refused, and the preview is to be made anew.`,
		Example: `  weft identity split anonymous_id:5e1f0c3a --dry-run
  weft identity split --link email:ann@example.com user_id:u2 --reason "two people, one tablet"`,
		Args: args(cobra.RangeArgs(1, 2)),
	}
	flags.add(cmd)
	preview.add(cmd)
	cmd.Flags().BoolVar(&link, "link", false, "undo what ties two identifiers")
	cmd.RunE = func(cmd *cobra.Command, texts []string) error {
		if link != (len(texts) == 2) {
			return usageError{errors.New("give one identifier, or --link and two")}
		}
		return withOperator(cmd, a, &flags, func(ctx context.Context, o *operator) error {
			ids, err := o.evidence(texts...)
			if err != nil {
				return err
			}
			_, err = o.split(ctx, cmd, ids, preview)
			return err
		})
	}
	return cmd
}

// split shows a preview and, unless that is all, gives the command. done: it was given.
func (o *operator) split(ctx context.Context, cmd *cobra.Command, ids []identity.Evidence, flags previewFlags) (done bool, err error) {
	if o.flags.reason == "" && !flags.dryRun {
		return false, usageError{errors.New("--reason is missing: say why, it is kept with the command; or --dry-run to see what would be")}
	}
	q, err := o.question(ctx, ids)
	if err != nil {
		return false, err
	}
	p, closeAll, err := o.previewer()
	if err != nil {
		return false, err
	}
	defer closeAll()
	looking, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	out := cmd.OutOrStdout()
	v, err := p.Preview(looking, q)
	if errors.Is(err, undo.ErrTied) {
		return false, fmt.Errorf("%w:\n%s", err, ties(v.Tied))
	}
	if err != nil {
		return false, err
	}
	if flags.dryRun && o.flags.asJSON {
		return false, explain.JSON(out, v)
	}
	if !o.flags.asJSON {
		if err := printPreview(out, v); err != nil {
			return false, err
		}
	}
	if flags.dryRun {
		return false, nil
	}
	if !flags.yes {
		if ok, err := yes(cmd.InOrStdin(), cmd.ErrOrStderr(), "Split?"); err != nil || !ok {
			return false, err
		}
	}
	return true, o.give(ctx, out, v.Command)
}

// question reads from the graph whose the identifiers are.
func (o *operator) question(ctx context.Context, ids []identity.Evidence) (undo.Question, error) {
	var q undo.Question
	node, err := identity.ParseNode(ids[0].Node)
	if err != nil {
		return q, err
	}
	members, err := identity.Members(ctx, o.graph, node)
	if err != nil {
		return q, err
	}
	for _, m := range members {
		q.Members = append(q.Members, m.String())
	}
	q.Person = q.Members[0]
	if len(ids) == 1 {
		q.Out = ids[0].Node
		return q, nil
	}
	q.Link = [2]string{ids[0].Node, ids[1].Node}
	if !slices.Contains(q.Members, ids[1].Node) {
		return q, fmt.Errorf("%s:%s and %s:%s are not one person", ids[0].Type, ids[0].Value, ids[1].Type, ids[1].Value)
	}
	return q, nil
}

func ties(all []undo.Tie) string {
	var b strings.Builder
	for _, t := range all {
		fmt.Fprintf(&b, "  %s and %s: %d stored events carry both, such as %s\n", t.A, t.B, t.Events, t.Example)
	}
	b.WriteString("take one of them out, or undo one of these links first ('weft identity why' names them)")
	return b.String()
}

// printPreview shows what a person is and what its parts will be.
func printPreview(out io.Writer, v *undo.Preview) error {
	var b strings.Builder
	fmt.Fprintf(&b, "today: %s\n", v.Person)
	describe(&b, &v.Now)
	for i := range v.Parts {
		fmt.Fprintf(&b, "part %d:\n", i+1)
		describe(&b, &v.Parts[i])
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// shownIdentifiers is how many a preview lists of each part; --json has all.
const shownIdentifiers = 20

func describe(b *strings.Builder, p *undo.Person) {
	for i, id := range p.Identifiers {
		if i == shownIdentifiers {
			fmt.Fprintf(b, "  and %d more identifiers\n", len(p.Identifiers)-i)
			break
		}
		fmt.Fprintf(b, "  %s\n", explain.Plain(id.String()))
	}
	fmt.Fprintf(b, "  %d events, %d orders", p.Events, p.Profile.Orders)
	for _, currency := range slices.Sorted(maps.Keys(p.Profile.Revenue)) {
		fmt.Fprintf(b, ", %v %s", p.Profile.Revenue[currency], explain.Plain(currency))
	}
	fmt.Fprintf(b, "\n  %d open carts", len(p.Profile.OpenCarts))
	for i := range p.Profile.OpenCarts {
		c := &p.Profile.OpenCarts[i]
		fmt.Fprintf(b, "; %q of %s: %s items", c.ID, explain.Plain(c.Brand), c.Items)
	}
	fmt.Fprintf(b, "\n  %d journeys wait", len(p.Running))
	for _, r := range p.Running {
		fmt.Fprintf(b, "; %s with cart %q since %s", r.Journey, r.Cart, r.ArmedAt.Format("2006-01-02 15:04:05"))
	}
	if len(p.Profile.Audiences) > 0 {
		fmt.Fprintf(b, "\n  audiences: %s", strings.Join(p.Profile.Audiences, ", "))
	}
	b.WriteString("\n")
}

func newIdentityBlockCommand(a *app) *cobra.Command {
	var flags operatorFlags
	var preview previewFlags
	cmd := &cobra.Command{
		Use:   "block TYPE:VALUE",
		Short: "Have an identifier count for nobody, and take it out of its person",
		Long: `Take an identifier out of its person, as 'weft identity split' does, with the same preview, and set it aside from every event from
then on. An event that carries nothing else is a person of its own. 'weft identity unblock' takes it back.`,
		Example: `  weft identity block email:info@example.com --reason "the shop's own address"`,
		Args:    args(cobra.ExactArgs(1)),
	}
	flags.add(cmd)
	preview.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, texts []string) error {
		return withOperator(cmd, a, &flags, func(ctx context.Context, o *operator) error {
			ids, err := o.evidence(texts...)
			if err != nil {
				return err
			}
			q, err := o.question(ctx, ids)
			if err != nil {
				return err
			}
			if len(q.Members) > 1 {
				wait := o.flags.wait
				o.flags.wait = true // it is blocked only if it was taken out
				done, err := o.split(ctx, cmd, ids, preview)
				if err != nil || !done {
					return err
				}
				o.flags.wait = wait
			} else if preview.dryRun {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "it belongs to nobody else: nothing to split")
				return err
			}
			return o.give(ctx, cmd.OutOrStdout(), identity.Command{Kind: identity.CommandBlock, Identifiers: ids})
		})
	}
	return cmd
}
