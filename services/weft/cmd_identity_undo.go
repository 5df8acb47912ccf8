package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/store"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
	"github.com/weft-cdp/weft/pkg/warehouse"
)

const (
	// statusEvery is how often a command that waits looks how far its own has come.
	statusEvery = 200 * time.Millisecond
	// defaultWait is how long it waits for the end: a person of ten thousand events takes some seconds.
	defaultWait = 10 * time.Minute
)

// operator is who gives commands on identities, with what they need.
type operator struct {
	cfg    config.Config
	rules  *identity.Rules
	names  *explain.Explainer
	store  *store.Client
	stream *stream.Client
	graph  *identity.Graph
	ledger *undo.Ledger
	topics topic.Set
	flags  *operatorFlags
}

// operatorFlags are the flags of commands that act.
type operatorFlags struct {
	actor, reason, brand string
	wait, asJSON         bool
	within               time.Duration
}

func (f *operatorFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.actor, "actor", "", "who says so (default USER@HOST)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, in words; it is kept with the command (required)")
	cmd.Flags().StringVar(&f.brand, "brand", "", "the brand that knows the identifiers, where their type belongs to brands (scope in the rules file)")
	cmd.Flags().BoolVar(&f.wait, "wait", true, "wait until the command has been carried out, and say how it ended")
	cmd.Flags().DurationVar(&f.within, "within", defaultWait, "how long to wait")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "one JSON object: the status of the command")
}

// whoami is USER@HOST.
func whoami() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}

// withOperator opens what commands on identities need, and closes it.
func withOperator(cmd *cobra.Command, a *app, flags *operatorFlags, f func(ctx context.Context, o *operator) error) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	switch {
	case len(cfg.Kafka.Brokers) == 0:
		return missing("kafka.brokers")
	case len(cfg.Redis.Addresses) == 0:
		return missing("redis.addresses")
	}
	o := &operator{cfg: cfg, flags: flags, topics: cfg.Topics.Set()}
	if flags.actor == "" {
		flags.actor = whoami()
	}
	if o.rules, err = identityRules(cfg); err != nil {
		return err
	}
	o.names = explain.New(nil, o.rules)
	if o.store, err = store.New(cfg.Redis, zap.NewNop()); err != nil {
		return err
	}
	defer func() { _ = o.store.Close() }() // was written to and acknowledged
	if o.stream, err = stream.New(cfg.Kafka, zap.NewNop()); err != nil {
		return err
	}
	defer o.stream.Close()
	o.graph, o.ledger = identity.NewGraph(o.store, o.topics.Prefix), undo.NewLedger(o.store, o.topics)
	ctx, unregister := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	return f(ctx, o)
}

// evidence reads identifiers as the rules do.
func (o *operator) evidence(texts ...string) ([]identity.Evidence, error) {
	out := make([]identity.Evidence, len(texts))
	for i, text := range texts {
		id, err := o.names.Parse(o.flags.brand, text)
		if err != nil {
			return nil, usageError{err}
		}
		out[i] = identity.Evidence{Type: id.Type, Value: id.Value, Node: id.ID}
	}
	return out, nil
}

// give sends a command, and waits for its end if that is wanted.
func (o *operator) give(ctx context.Context, out io.Writer, c identity.Command) error {
	if o.flags.reason == "" {
		return usageError{errors.New("--reason is missing: say why, it is kept with the command")}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	c.ID, c.Actor, c.Reason, c.At = id.String(), o.flags.actor, o.flags.reason, time.Now().UTC().Truncate(time.Millisecond)
	sending, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	if err := undo.Send(sending, o.stream, o.ledger, o.topics, &c); err != nil {
		return err
	}
	if !o.flags.wait {
		if o.flags.asJSON {
			return explain.JSON(out, undo.Status{ID: c.ID, Kind: c.Kind, Actor: c.Actor, Reason: c.Reason, At: c.At, Offset: -1, State: undo.Queued})
		}
		_, err := fmt.Fprintf(out, "command %s: queued; 'weft identity commands %s' tells how it ends\n", c.ID, c.ID)
		return err
	}
	waiting, stop := context.WithTimeout(ctx, o.flags.within)
	defer stop()
	step := ""
	s, err := o.ledger.Wait(waiting, c.ID, statusEvery, func(s undo.Status) {
		if now := s.Step + s.Error; now != "" && now != step && !s.State.Ended() && !o.flags.asJSON {
			step = now
			_, _ = fmt.Fprintf(out, "  %s\n", strings.TrimSuffix(s.Step+": "+s.Error, ": ")) // the end is told below
		}
	})
	if err != nil {
		return err
	}
	if o.flags.asJSON {
		err = explain.JSON(out, s)
	} else {
		err = printStatus(out, &s)
	}
	if err == nil && s.State == undo.Refused {
		return errSilent
	}
	return err
}

// printStatus says how far a command is.
func printStatus(out io.Writer, s *undo.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "command %s: %s %s", s.ID, s.Kind, s.State)
	if s.Ended != nil && s.Began != nil {
		fmt.Fprintf(&b, " after %s", s.Ended.Sub(*s.Began).Round(time.Millisecond))
	}
	if s.Step != "" {
		fmt.Fprintf(&b, ", at: %s", s.Step)
	}
	if s.Error != "" {
		fmt.Fprintf(&b, ": %s", s.Error)
	}
	b.WriteByte('\n')
	for _, name := range sortedKeys(s.Counts) {
		fmt.Fprintf(&b, "  %s: %d\n", name, s.Counts[name])
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// pairCommand is a command about two identifiers, or one.
func pairCommand(a *app, kind identity.CommandKind, n int, cmd *cobra.Command) *cobra.Command {
	var flags operatorFlags
	flags.add(cmd)
	cmd.Args = args(cobra.ExactArgs(n))
	cmd.RunE = func(cmd *cobra.Command, texts []string) error {
		return withOperator(cmd, a, &flags, func(ctx context.Context, o *operator) error {
			ids, err := o.evidence(texts...)
			if err != nil {
				return err
			}
			return o.give(ctx, cmd.OutOrStdout(), identity.Command{Kind: kind, Identifiers: ids})
		})
	}
	return cmd
}

func newIdentityLinkCommand(a *app) *cobra.Command {
	return pairCommand(a, identity.CommandLink, 2, &cobra.Command{
		Use:   "link TYPE:VALUE TYPE:VALUE",
		Short: "Say that two identifiers are one person",
		Long: `Make one person of two identifiers, whatever the governor's caps say. It is refused, with the reason, if a limit of the rules
file or an earlier split or reject is in the way: release that one first.`,
		Example: `  weft identity link email:ann@example.com user_id:u1 --reason "she called"`,
	})
}

func newIdentityRejectCommand(a *app) *cobra.Command {
	return pairCommand(a, identity.CommandReject, 2, &cobra.Command{
		Use:   "reject TYPE:VALUE TYPE:VALUE",
		Short: "Say that two identifiers must not become one person",
		Long: `Have two identifiers never be one person, whatever events say: a record that carries both is resolved without the dearer one's
lesser. It is refused if they are one person already: split them first. 'weft identity release' takes it back.`,
		Example: `  weft identity reject email:ann@example.com email:bob@example.com --reason "a shared till"`,
	})
}

func newIdentityUnblockCommand(a *app) *cobra.Command {
	return pairCommand(a, identity.CommandUnblock, 1, &cobra.Command{
		Use:     "unblock TYPE:VALUE",
		Short:   "Have a blocked identifier count again, from now on",
		Long:    "Have an identifier count again that was blocked. What came meanwhile stays with whom it is.",
		Example: `  weft identity unblock email:info@example.com --reason "it is a person after all"`,
	})
}

func newIdentityReleaseCommand(a *app) *cobra.Command {
	var flags operatorFlags
	cmd := &cobra.Command{
		Use:   "release COMMAND",
		Short: "Let the parts of a split, or a rejected pair, be one person again",
		Long: `Take back that the parts of an earlier split, or the two identifiers of a reject, must not be one person. It joins nobody: what
comes next does, the next event that carries both or 'weft identity link'. COMMAND is the id that split or reject has shown;
'weft identity commands' lists them.`,
		Example: `  weft identity release 0192d1c5-6b1e-7c55-8e0e-3f1d3b1f6a51 --reason "one person after all"`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withOperator(cmd, a, &flags, func(ctx context.Context, o *operator) error {
				return o.give(ctx, cmd.OutOrStdout(), identity.Command{Kind: identity.CommandRelease, Split: ids[0]})
			})
		},
	}
	flags.add(cmd)
	return cmd
}

func newIdentityCommandsCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "commands [COMMAND]",
		Short: "List what operators have said of identities, and how it ended",
		Long: `List the commands on identities, the newest first, with who gave them, why, and how far each is: queued, running (and at which
step, or what it waits for), done, or refused with the reason.`,
		Example: `  weft identity commands
  weft identity commands 0192d1c5-6b1e-7c55-8e0e-3f1d3b1f6a51 --json`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return withOperator(cmd, a, &operatorFlags{}, func(ctx context.Context, o *operator) error {
				all, err := o.ledger.List(ctx)
				if err != nil {
					return err
				}
				if len(ids) == 0 {
					return printCommands(cmd.OutOrStdout(), all, asJSON)
				}
				i := slices.IndexFunc(all, func(s undo.Status) bool { return s.ID == ids[0] })
				switch {
				case i < 0:
					return fmt.Errorf("command %s is not known", ids[0])
				case asJSON:
					return explain.JSON(cmd.OutOrStdout(), all[i])
				}
				return printStatus(cmd.OutOrStdout(), &all[i])
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "JSON instead of a table")
	return cmd
}

func printCommands(out io.Writer, all []undo.Status, asJSON bool) error {
	if asJSON {
		return explain.JSON(out, all)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMMAND\tAT\tKIND\tSTATE\tBY\tREASON\tNOTE")
	for i := range all {
		s := &all[i]
		note := strings.TrimPrefix(strings.TrimSuffix(s.Step+": "+s.Error, ": "), ": ")
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, s.At.UTC().Format(time.RFC3339), s.Kind, s.State, s.Actor, s.Reason, note)
	}
	return w.Flush()
}

// yes asks a person.
func yes(in io.Reader, out io.Writer, question string) (bool, error) {
	if _, err := fmt.Fprintf(out, "%s [y/N] ", question); err != nil {
		return false, err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

// previewer opens ClickHouse for a preview.
func (o *operator) previewer() (*undo.Previewer, func(), error) {
	if len(o.cfg.ClickHouse.Addresses) == 0 {
		return nil, nil, missing("clickhouse.addresses")
	}
	folds := func() (undo.Folds, error) { return undo.LoadFolds(o.cfg) }
	wh, err := warehouse.Open(o.cfg.ClickHouse)
	if err != nil {
		return nil, nil, err
	}
	p := undo.NewPreviewer(undo.NewHistory(wh, o.rules), o.rules, folds, undo.LinksOf(wh), time.Now)
	return p, func() { _ = wh.Close() }, nil // was only read
}
