package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/services/weft/replay"
	"github.com/weft-cdp/weft/services/weft/replay/door"
)

// replayOptions are the flags of 'weft replay'.
type replayOptions struct {
	replay.Options
	key      string
	mapping  string
	patience time.Duration
}

// replayPatience is how long a batch is tried again: longer than a broker's restart or a deployment.
const replayPatience = 10 * time.Minute

// maxShownRefusals is how many refused lines are named.
const maxShownRefusals = 20

func newReplayCommand(a *app) *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Send the events of a file in",
		Long: `Send the events of a file in through the HTTP door: Segment-shaped JSON lines, or, with a mapping file, CSV,
space-separated columns or any JSON lines; packed with gzip or not. See schemas/replay/cdnow.yaml for a mapping.

Message ids are made of the mapping and the row (and of how many equal rows stand before it), unless the row has one of
its own: replaying a file twice, or after lines were added, changes nothing, and equal rows stay distinct. Events of one
sender's id arrive in the file's order. FILE.progress names what was acknowledged, for --resume after an interruption.

The write key comes from --key, else from the first trusted source of the configuration, else its first source.

Exit status 1 if a line was refused: each is named.`,
		Example: `  weft replay events.jsonl --key KEY
  weft replay cdnow.txt.gz --mapping schemas/replay/cdnow.yaml --key KEY
  weft replay export.csv --mapping export.yaml --historical --resume`,
		GroupID: groupTools,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			o.File = given[0]
			return runReplay(cmd.Context(), a, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.To, "to", "", "the HTTP door (default: activator.public_url of the configuration)")
	f.StringVar(&o.key, "key", "", "write key to send with")
	f.StringVar(&o.mapping, "mapping", "", "mapping file: how rows become events")
	f.BoolVar(&o.Resume, "resume", false, "go on where the progress file says")
	f.StringVar(&o.State, "state", "", "progress file (default: FILE.progress)")
	f.BoolVar(&o.Historical, "historical", false, "mark every event as history: it counts, and triggers no message")
	f.IntVar(&o.Lanes, "lanes", 0, "requests on their way at once (default 4)")
	f.DurationVar(&o.patience, "patience", replayPatience, "how long a batch is tried again while the door is unavailable; 0: for ever")
	return cmd
}

func runReplay(ctx context.Context, a *app, o replayOptions, out, errOut io.Writer) error {
	ctx, unregister := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer unregister()
	if err := o.complete(a); err != nil {
		return err
	}
	if o.mapping != "" {
		format, err := replay.LoadFormat(o.mapping)
		if err != nil {
			return err
		}
		o.Format = format
	}
	bar := newBar(errOut)
	o.OnProgress = bar.show
	d, err := door.New(o.To, o.key, door.Options{Patience: o.patience, OnRetry: bar.retry})
	if err != nil {
		return err
	}
	report, err := replay.Run(ctx, o.Options, d)
	bar.finish()
	if printErr := printReplay(out, o, report); printErr != nil {
		return errors.Join(err, printErr)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted; 'weft replay --resume' goes on")
	case err != nil:
		return fmt.Errorf("replay %s: %w", o.File, err)
	case report.Refused > 0:
		return errSilent
	}
	return nil
}

// complete fills in what the configuration knows.
func (o *replayOptions) complete(a *app) error {
	if o.To != "" && o.key != "" {
		return nil
	}
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if o.To == "" {
		o.To = cfg.Activator.PublicURL
	}
	for _, s := range cfg.Collector.Sources {
		if o.key == "" && s.Trusted {
			o.key = s.WriteKey
		}
	}
	if o.key == "" && len(cfg.Collector.Sources) > 0 {
		o.key = cfg.Collector.Sources[0].WriteKey
	}
	if o.key == "" {
		return errors.New("which source? give --key, or a configuration that has sources")
	}
	return nil
}

func printReplay(out io.Writer, o replayOptions, r replay.Report) error {
	rate := 0.0
	if s := r.Took.Seconds(); s > 0 {
		rate = float64(r.Acknowledged) / s
	}
	_, err := fmt.Fprintf(out, "%s: %d events read, %d done before, %d acknowledged, %d refused, in %s (%.0f a second)\n",
		o.File, r.Rows, r.Skipped, r.Acknowledged, r.Refused, r.Took.Round(10*time.Millisecond), rate)
	for i, x := range r.Named {
		if i == maxShownRefusals {
			_, err = fmt.Fprintf(out, "and %d more\n", r.Refused-maxShownRefusals)
			break
		}
		_, err = fmt.Fprintf(out, "line %d: %s\n", x.Line, x.Reason)
	}
	if err != nil {
		return fmt.Errorf("print the summary: %w", err)
	}
	return nil
}

// bar is the progress bar; it is quiet where nobody looks.
type bar struct{ p *progressbar.ProgressBar }

func newBar(w io.Writer) *bar {
	if !isTerminal(w) {
		return &bar{}
	}
	return &bar{progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true), progressbar.OptionSetWidth(30),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetDescription("sending"))}
}

func (b *bar) show(read, size, acknowledged int64) {
	if b.p == nil {
		return
	}
	b.p.ChangeMax64(size)
	b.p.Describe(fmt.Sprintf("%d events acknowledged", acknowledged))
	_ = b.p.Set64(min(read, size)) // a bar that cannot be drawn is no reason to stop
}

func (b *bar) retry(reason error, pause time.Duration) {
	if b.p != nil {
		b.p.Describe(fmt.Sprintf("waiting %s: %v", pause.Round(time.Second/10), reason))
	}
}

func (b *bar) finish() {
	if b.p != nil {
		_ = b.p.Finish() // as above
	}
}
