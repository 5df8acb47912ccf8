package servers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Link is a proxy that Weft reaches a server through. Safe for concurrent use.
type Link struct {
	Name    string
	Address string // of the proxy

	mu    sync.Mutex
	proxy *toxiproxy.Proxy
}

// link opens a proxy in front of a server's address, on a port that stays.
func (d *Deployment) link(name, upstream string) (*Link, error) {
	if d.toxi == nil {
		zerolog.SetGlobalLevel(zerolog.Disabled) // its toxics write to standard error otherwise
		d.toxi = toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	}
	l := &Link{Name: name, Address: d.address(name + "-link")}
	l.proxy = toxiproxy.NewProxy(d.toxi, name, l.Address, upstream)
	if err := l.proxy.Start(); err != nil {
		return nil, fmt.Errorf("open the link to %s: %w", name, err)
	}
	d.links = append(d.links, l)
	return l, nil
}

// Harm is what can be done to a link.
type Harm string

// The harms of a link.
const (
	Cut      Harm = "cut"         // connections are closed, new ones refused
	Swallow  Harm = "lost answer" // requests go through, answers do not come back
	Delay    Harm = "delay"       // every answer comes late, some later
	Throttle Harm = "throttle"    // some kilobytes a second, both ways
	Sever    Harm = "sever"       // each connection is cut in the middle of an answer
)

// Harms are all of them.
func Harms() []Harm { return []Harm{Cut, Swallow, Delay, Throttle, Sever} }

// Hurt does harm to a link until Heal.
func (l *Link) Hurt(h Harm, r *rand.Rand) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var toxics []string
	switch h {
	case Cut:
		l.proxy.Stop()
		return nil
	case Swallow: // a time-out of zero passes nothing, and closes nothing
		toxics = []string{`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`}
	case Delay:
		ms := 100 + r.IntN(900)
		toxics = []string{fmt.Sprintf(`{"type":"latency","stream":"downstream","attributes":{"latency":%d,"jitter":%d}}`, ms, ms/2)}
	case Throttle:
		rate := 10 + r.IntN(90)
		for _, way := range []string{"upstream", "downstream"} {
			toxics = append(toxics, fmt.Sprintf(`{"type":"bandwidth","stream":%q,"attributes":{"rate":%d}}`, way, rate))
		}
	case Sever:
		toxics = []string{fmt.Sprintf(`{"type":"limit_data","stream":"downstream","attributes":{"bytes":%d}}`, 50+r.IntN(20_000))}
	default:
		return fmt.Errorf("hurt the link to %s: no harm is called %q", l.Name, h)
	}
	for _, t := range toxics {
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(t)); err != nil {
			return fmt.Errorf("hurt the link to %s with %s: %w", l.Name, t, err)
		}
	}
	return nil
}

// Heal makes the link whole.
func (l *Link) Heal(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proxy.Toxics.ResetToxics(ctx)
	l.proxy.Lock()
	enabled := l.proxy.Enabled
	l.proxy.Unlock()
	if enabled {
		return nil
	}
	if err := l.proxy.Start(); err != nil {
		return fmt.Errorf("open the link to %s again: %w", l.Name, err)
	}
	return nil
}

// close ends the proxy.
func (l *Link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proxy.Stop()
}
