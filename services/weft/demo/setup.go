package demo

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/weft-cdp/weft/pkg/config"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/schemas/journeys"
	"github.com/weft-cdp/weft/services/weft/replay/door"
)

const (
	// TillTopic is where the shop's tills write their sales.
	TillTopic = "till.sales"
	// TillPartitions is their number, unlike that of Weft's own topics on purpose.
	TillPartitions = 3
	// journeyFile is the shipped journey that the demo runs.
	journeyFile = "abandoned-cart.yaml"
	// accessKey reads profiles of the demo; it listens on loopback only.
	accessKey = "demo-reader"
)

// Addresses that the demo prefers; where one is taken, any free one does.
const (
	preferDoor     = "127.0.0.1:8080"
	preferProfiles = "127.0.0.1:8081"
	preferAdmin    = "127.0.0.1:8090"
)

// Sources are the HTTP senders of the shop: what browsers and apps send may not join two known people.
func Sources() []config.Source {
	return []config.Source{
		{Name: string(Web), WriteKey: "demo-web", Brand: "main"},
		{Name: string(App), Kind: config.KindApp, WriteKey: "demo-app", Brand: "main"},
		{Name: string(Shop), WriteKey: "demo-shop", Brand: "main", Trusted: true},
	}
}

// TillInlet is how a sale at the till becomes an event.
func TillInlet() config.Inlet {
	return config.Inlet{
		Name: string(Till), Topic: TillTopic, Brand: "main", Trusted: true,
		Mapping: map[string]string{
			"type":                             "'track'",
			"event":                            "'Order Completed'",
			"userId":                           "$.customer.id",
			"context.traits.email":             "$.customer.email",
			"timestamp":                        "$.soldAt",
			"properties.order_id":              "$.receipt",
			"properties.till":                  "$.till",
			"properties.total":                 "$.total",
			"properties.currency":              "$.currency",
			"properties.products[].product_id": "$.items[*].sku",
			"properties.products[].name":       "$.items[*].name",
			"properties.products[].price":      "$.items[*].price",
			"properties.products[].quantity":   "$.items[*].quantity",
		},
	}
}

// Configure makes cfg that of the demo's own Weft, all of it in dir: an ordinary configuration. mailbox is the
// address of the mail server.
func Configure(cfg *config.Config, dir string, plan Plan, visitors []Visitor, mailbox string) error {
	cfg.DataDir = dir
	cfg.Identity.KeyFile = filepath.Join(dir, "identity.key")
	cfg.Collector.UnsubscribeSecret = filepath.Join(dir, "unsubscribe.key")
	cfg.Collector.Sources = Sources()
	cfg.Collector.Inlets = []config.Inlet{TillInlet()}
	// What is spooled because Kafka was slow is written twice, and one of both dropped: no fault, but on a busy machine the
	// counts would not be those of the shop.
	cfg.Collector.SpoolAfter = cfg.Collector.ProduceTimeout - time.Second
	cfg.Builder.AccessKeys = []string{accessKey}
	cfg.Activator.SMTP.Address, cfg.Activator.SMTP.TLS = mailbox, "none"
	cfg.Activator.Journeys = filepath.Join(dir, "journeys")
	cfg.Activator.SuppressionFile = filepath.Join(dir, "suppressed.txt")
	var err error
	for _, a := range []struct {
		to     *string
		prefer string
	}{{&cfg.Collector.Listen, preferDoor}, {&cfg.Builder.Listen, preferProfiles}, {&cfg.Admin.Listen, preferAdmin}} {
		if *a.to, err = freeAddress(a.prefer); err != nil {
			return err
		}
	}
	cfg.Activator.PublicURL = "http://" + cfg.Collector.Listen
	if err := os.MkdirAll(cfg.Activator.Journeys, 0o750); err != nil {
		return fmt.Errorf("journeys of the demo: %w", err)
	}
	text, err := Journey(plan.Delay)
	if err == nil {
		err = os.WriteFile(filepath.Join(cfg.Activator.Journeys, journeyFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("journeys of the demo: %w", err)
	}
	list := strings.Join(SuppressionList(visitors), "\n") + "\n"
	if err := os.WriteFile(cfg.Activator.SuppressionFile, []byte(list), 0o600); err != nil {
		return fmt.Errorf("suppression list of the demo: %w", err)
	}
	return config.Validate(*cfg)
}

var delayLine = regexp.MustCompile(`(?m)^delay:\s*\S+`)

// Journey is the shipped journey with another delay.
func Journey(delay time.Duration) ([]byte, error) {
	text, err := fs.ReadFile(journeys.Files, journeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the shipped journey: %w", err)
	}
	if !delayLine.Match(text) {
		return nil, fmt.Errorf("the shipped journey %s has no line 'delay:'", journeyFile)
	}
	return delayLine.ReplaceAll(text, []byte("delay: "+delay.String())), nil
}

// freeAddress is prefer if nothing listens there, else a free port on loopback.
func freeAddress(prefer string) (string, error) {
	l, err := net.Listen("tcp", prefer)
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", fmt.Errorf("find a free port: %w", err)
		}
	}
	address := l.Addr().String()
	return address, l.Close()
}

// NewDoors opens the ways in: the HTTP door with the keys of sources, and a till's topic, which is made if
// there is none. A channel takes the source of its name, else the one whose name ends in it ("shop-web"), else the first with its trust.
func NewDoors(ctx context.Context, address string, sources []config.Source, client *stream.Client, tillTopic string, t config.Topics) (Doors, error) {
	d := Doors{HTTP: map[Channel]*door.Client{}}
	for _, ch := range []Channel{Web, App, Shop} {
		src, ok := sourceFor(ch, sources)
		if !ok {
			return d, fmt.Errorf("collector.sources has none that can stand for %q", ch)
		}
		c, err := door.New(address, src.WriteKey, door.Options{})
		if err != nil {
			return d, err
		}
		d.HTTP[ch] = c
	}
	if err := ensureTill(ctx, client, tillTopic, t); err != nil {
		return d, err
	}
	partitions, err := client.PartitionCount(ctx, tillTopic)
	if err != nil {
		return d, fmt.Errorf("topic of the till: %w", err)
	}
	d.Till = func(ctx context.Context, key string, record []byte) error {
		return client.Produce(ctx, tillTopic, topic.Partition([]byte(key), partitions), []stream.Record{{Key: []byte(key), Value: record}})
	}
	return d, nil
}

// ensureTill makes the till's topic unless it is there with any partition count: it is the shop's, not Weft's.
func ensureTill(ctx context.Context, client *stream.Client, name string, t config.Topics) error {
	if _, err := client.PartitionCount(ctx, name); err == nil {
		return nil
	}
	if err := client.EnsureTopics(ctx, []topic.Spec{{Name: name, Partitions: TillPartitions}}, t); err != nil {
		return fmt.Errorf("make the till's topic: %w", err)
	}
	return nil
}

func sourceFor(ch Channel, sources []config.Source) (config.Source, bool) {
	for _, like := range []func(config.Source) bool{
		func(s config.Source) bool { return s.Name == string(ch) },
		func(s config.Source) bool { return strings.HasSuffix(s.Name, "-"+string(ch)) },
		func(s config.Source) bool { return s.Trusted == (ch == Shop) },
	} {
		for _, s := range sources {
			if s.WriteKey != "" && like(s) { // one that is there as a hash only cannot be used
				return s, true
			}
		}
	}
	return config.Source{}, false
}

// RunID is a prefix that no other run has had, second by second.
func RunID(now time.Time) string { return "r" + strconv.FormatInt(now.Unix(), 36) }
