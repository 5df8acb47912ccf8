package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/inlet"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/collector"
)

// maxSample bounds the file of samples, which is read as a whole.
const maxSample = 64 << 20

func newSourcesCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "sources",
		Short:   "List, check and try out sources",
		Long:    "List, check and try out sources: those of the configuration, of collector.sources_dir, and files.\ndocs/sources.md has one for each kind.",
		GroupID: groupTools,
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSourcesListCommand(a), newSourcesCheckCommand(a), newSourcesTestCommand(a))
	return cmd
}

func newSourcesListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the sources",
		Long:    "List the sources of the configuration and of collector.sources_dir, with where each stands.",
		Example: "  weft sources list --config weft.yaml",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tKIND\tBRAND\tSENDS\tSTANDS IN")
			for _, s := range sourcesOf(cfg) {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Name, s.KindOrDefault(), s.Brand, sends(s), standsIn(s))
			}
			return w.Flush()
		},
	}
}

// sourcesOf are all sources: those over HTTP, then the topics.
func sourcesOf(cfg config.Config) []config.Source {
	list := make([]config.Source, 0, len(cfg.Collector.Sources)+len(cfg.Collector.Inlets))
	list = append(list, cfg.Collector.Sources...)
	for _, in := range cfg.Collector.Inlets {
		list = append(list, in.Source())
	}
	for i := range list {
		if list[i].Brand == "" {
			list[i].Brand = cfg.Collector.Brand
		}
	}
	return list
}

// sends says in a word what comes from a source.
func sends(s config.Source) string {
	switch {
	case s.Disabled:
		return "nothing: disabled"
	case s.Kafka.Topic != "":
		format := s.Kafka.Format
		if format == "" {
			format = config.FormatJSON
		}
		return format + " on " + s.Kafka.Topic
	}
	n := len(s.WriteKeyHashes)
	if s.WriteKey != "" {
		n++
	}
	return fmt.Sprintf("HTTP, %d key(s)", n)
}

func standsIn(s config.Source) string {
	if s.File != "" {
		return s.File
	}
	return "the configuration"
}

func newSourcesCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE...]",
		Short: "Check sources, with their expressions",
		Long: `Check the sources of the configuration and of collector.sources_dir, or only the files that are named: every key, and every
path and expression. Nothing is connected to. Exit status 0 if all is well, else 1.`,
		Example: `  weft sources check --config weft.yaml
  weft sources check sources/till.yaml`,
		RunE: func(cmd *cobra.Command, files []string) error {
			cfg, list, err := a.sources(files)
			if err != nil {
				return err
			}
			var errs []error
			for _, s := range list {
				if _, err := collector.NewPreview(cfg.Collector, s, time.Now); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", standsIn(s), err))
				}
			}
			if err := errors.Join(errs...); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d sources: no faults\n", len(list))
			return nil
		},
	}
}

// sources are those in the files, or all.
func (a *app) sources(files []string) (config.Config, []config.Source, error) {
	if len(files) == 0 {
		cfg, err := a.load()
		return cfg, sourcesOf(cfg), err
	}
	cfg := config.Defaults()
	var list []config.Source
	var errs []error
	for _, file := range files {
		s, err := config.LoadSource(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if s.Brand == "" {
			s.Brand = cfg.Collector.Brand
		}
		list = append(list, s)
	}
	return cfg, list, errors.Join(errs...)
}

func newSourcesTestCommand(a *app) *cobra.Command {
	var key string
	var headers []string
	cmd := &cobra.Command{
		Use:   "test FILE SAMPLE",
		Short: "Print the events that a source would give for sample records",
		Long: `Print the events that a source would give for sample records, one JSON object a line: what becomes of the record, the
event's key, its time, the source and brand, and the event. SAMPLE has JSON records one after another (over as many lines
as they like), lines of CSV, or, of formats with a schema registry, one record as it stands on the topic; - is the
standard input. The registry is asked; Kafka is not. A record that cannot be an event is told with its place in the
file, the reason, and of an expression the field, line, column and text; the others are printed all the same.
Exit status 0 if no record is rejected, else 1.`,
		Example: `  weft sources test sources/till.yaml sale.json
  kcat -C -t till.sales -c 5 -e | weft sources test sources/till.yaml -
  weft sources test sources/customers.yaml change.json --key '{"id": 7}' --header shop=vienna`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, names []string) error {
			cfg, list, err := a.sources(names[:1])
			if err != nil {
				return err
			}
			t := sourceTest{out: cmd.OutOrStdout(), source: list[0], record: stream.Record{}}
			if key != "" {
				t.record.Key = []byte(key)
			}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, "=")
				if !ok || name == "" {
					return usageError{fmt.Errorf("--header: want name=value, found %q", h)}
				}
				t.record.Headers = append(t.record.Headers, topic.Header{Key: name, Value: []byte(value)})
			}
			if t.preview, err = collector.NewPreview(cfg.Collector, t.source, time.Now); err != nil {
				return err
			}
			sample, err := readSample(cmd.InOrStdin(), names[1])
			if err != nil {
				return err
			}
			return t.run(cmd.Context(), sample)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "the records' key")
	cmd.Flags().StringArrayVar(&headers, "header", nil, "a header of the records, name=value; may be given several times")
	return cmd
}

func readSample(in io.Reader, name string) ([]byte, error) {
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // the path is the operator's
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	sample, err := io.ReadAll(io.LimitReader(in, maxSample+1))
	if err == nil && len(sample) > maxSample {
		err = fmt.Errorf("the sample has more than %d bytes", maxSample)
	}
	return sample, err
}

// sourceTest is one run of `weft sources test`.
type sourceTest struct {
	out     io.Writer
	source  config.Source
	preview *collector.Preview
	record  stream.Record // with what all records have in common
}

func (t *sourceTest) run(ctx context.Context, sample []byte) error {
	rejected, n := 0, 0
	err := eachRecord(t.source.Kafka.Format, sample, func(value []byte, line int) error {
		rec := t.record
		rec.Value, rec.Offset = value, int64(n)
		n++
		o, err := t.preview.Record(ctx, rec)
		if errors.Is(err, inlet.ErrHeld) {
			return fmt.Errorf("line %d: the record would be held: %w", line, err)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if o.Result == "rejected" {
			rejected++
		}
		return t.print(o, line)
	})
	switch {
	case err != nil:
		return err
	case n == 0:
		return errors.New("there is no record in the sample")
	case rejected > 0:
		return errSilent
	}
	return nil
}

// printed is one line of the output.
type printed struct {
	Line       int             `json:"line"`
	Result     string          `json:"result"`
	Reason     string          `json:"reason,omitempty"`
	Error      string          `json:"error,omitempty"`
	Key        string          `json:"key,omitempty"`
	Time       *time.Time      `json:"time,omitempty"`
	Source     string          `json:"source"`
	Brand      string          `json:"brand"`
	Historical bool            `json:"historical,omitempty"`
	Flags      string          `json:"flags,omitempty"`
	Event      json.RawMessage `json:"event,omitempty"`
}

func (t *sourceTest) print(o collector.Outcome, line int) error {
	p := printed{
		Line: line, Result: o.Result, Reason: o.Reason, Error: o.Error, Key: string(o.Key), Source: o.Meta.Source, Brand: o.Meta.Brand,
		Historical: o.Meta.Historical, Flags: o.Meta.Flags, Event: o.Body,
	}
	if !o.Time.IsZero() {
		p.Time = &o.Time
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return err
	}
	_, err := t.out.Write(b.Bytes())
	return err
}

// eachRecord calls do for the records of a sample, with the line that each begins in.
func eachRecord(format string, sample []byte, do func(value []byte, line int) error) error {
	if len(sample) > 0 && sample[0] == 0 { // Confluent's wire format is binary: the file is the record
		return do(sample, 1)
	}
	if format == config.FormatCSV {
		lines := bufio.NewScanner(bytes.NewReader(sample))
		lines.Buffer(nil, maxSample+1)
		for n := 1; lines.Scan(); n++ {
			if len(lines.Bytes()) == 0 {
				continue
			}
			if err := do(bytes.Clone(lines.Bytes()), n); err != nil {
				return err
			}
		}
		return lines.Err()
	}
	d := json.NewDecoder(bytes.NewReader(sample))
	for {
		var value json.RawMessage
		err := d.Decode(&value)
		end := int(d.InputOffset())
		begin := end - len(value)
		line := 1 + bytes.Count(sample[:max(0, begin)], []byte{'\n'})
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil { // what is left is one record that is broken: the collector says how
			rest := bytes.TrimSpace(sample[end:])
			line = 1 + bytes.Count(sample[:len(sample)-len(bytes.TrimLeft(sample[end:], " \t\r\n"))], []byte{'\n'})
			return do(rest, line)
		}
		if err := do(value, line); err != nil {
			return err
		}
	}
}
