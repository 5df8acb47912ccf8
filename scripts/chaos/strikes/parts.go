package strikes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/scripts/chaos/servers"
)

// The servers and links, as the ledger names them.
const (
	kafkaServer      = "kafka"
	redisServer      = "redis"
	clickHouseServer = "clickhouse"
	kafkaLink        = "link to kafka"
	redisLink        = "link to redis"
	clickHouseLink   = "link to clickhouse"
)

// Servers are the kinds of servers and links that a run strikes beside the stages.
func Servers() []string {
	return []string{kafkaServer, redisServer, clickHouseServer, kafkaLink, redisLink, clickHouseLink}
}

// FirstStrikes is within which time of the schedule each part is struck once: the longest wait before a first
// strike, and a breath that it may fall into. A shorter run could pass without having hurt everything.
const FirstStrikes = 35 * time.Second

// parts are all that is struck, each by itself.
func (s *Schedule) parts() []part {
	var out []part
	for _, x := range s.d.Services {
		out = append(out, part{x.Name, [2]time.Duration{300 * time.Millisecond, 3 * time.Second}, s.service(x), x.Stage})
	}
	out = append(out, part{kafkaServer, [2]time.Duration{8 * time.Second, 25 * time.Second}, s.kafka, ""})
	for _, x := range s.d.Redis {
		out = append(out, part{x.Name, [2]time.Duration{6 * time.Second, 20 * time.Second}, s.server(redisServer, x), ""})
	}
	out = append(out,
		part{clickHouseServer, [2]time.Duration{10 * time.Second, 30 * time.Second}, s.server(clickHouseServer, s.d.ClickHouse), ""},
		part{"links to kafka", [2]time.Duration{3 * time.Second, 10 * time.Second}, s.link(kafkaLink, s.d.KafkaLinks), ""},
		part{"links to redis", [2]time.Duration{4 * time.Second, 12 * time.Second}, s.link(redisLink, s.d.RedisLinks), ""},
		part{clickHouseLink, [2]time.Duration{4 * time.Second, 12 * time.Second}, s.link(clickHouseLink, []*servers.Link{s.d.ClickHouseLink}), ""})
	return out
}

// between is a random duration.
func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// clockDice is from which of a hundred on a service's clock is stepped.
const clockDice = 88

// service strikes one instance of a stage.
func (s *Schedule) service(x *servers.Service) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, r *rand.Rand) error {
		dice, pause := r.IntN(100), r.Float64()
		within := func(from, to time.Duration) time.Duration { return from + time.Duration(pause*float64(to-from)) }
		if err := x.Clock.Impossible(); err != nil && dice >= clockDice { // then it is killed, so that each turn is a strike
			if err := s.ledger.Append(ledger.Entry{Kind: ledger.Noted, Stage: x.Stage, What: "no clock step here: " + err.Error()}); err != nil {
				return err
			}
			dice = 0
		}
		switch {
		case dice < 50:
			if err := s.note(x.Stage, Kill, x.Name); err != nil {
				return err
			}
			x.Kill()
			sleep(ctx, within(0, 1500*time.Millisecond))
			return x.Start()
		case dice < 65:
			if err := s.note(x.Stage, Restart, x.Name); err != nil {
				return err
			}
			if err := x.Term(); err != nil { // it was killed then: told, and no fault of the promises
				if err := s.ledger.Append(ledger.Entry{Kind: ledger.Noted, Stage: x.Stage, What: err.Error()}); err != nil {
					return err
				}
			}
			return x.Start()
		case dice < 75:
			if err := s.note(x.Stage, Hiccup, x.Name); err != nil {
				return err
			}
			return s.pause(ctx, x.Process, within(50*time.Millisecond, 1500*time.Millisecond))
		case dice < clockDice:
			if err := s.note(x.Stage, Pause, x.Name); err != nil {
				return err
			}
			return s.pause(ctx, x.Process, servers.SessionTimeout+within(500*time.Millisecond, 4*time.Second))
		default:
			return s.clock(x, pause)
		}
	}
}

func (s *Schedule) pause(ctx context.Context, p *servers.Process, d time.Duration) error {
	p.Pause()
	sleep(ctx, d)
	p.Resume()
	return nil
}

// clock steps an instance's clock, until its next step or restart. The collectors' and activators' say when
// things happened and are due: they stay within what the oracle allows. A collector's is never behind the true time:
// it would turn the order of what one device did a moment before through the other collector (docs/reliability.md).
// The others' may be anything.
func (s *Schedule) clock(x *servers.Service, pause float64) error {
	off := time.Duration((2*pause - 1) * float64(10*time.Minute))
	switch x.Stage {
	case "collector":
		off = time.Duration(pause * float64(2*time.Second))
	case "activator":
		off = time.Duration((2*pause - 1) * float64(2*time.Second))
	}
	off = off.Round(time.Second)
	if err := s.note(x.Stage, Clock, fmt.Sprintf("%s by %s", x.Name, off)); err != nil {
		return err
	}
	return x.SetClock(off)
}

// kafka strikes one broker, rarely two.
func (s *Schedule) kafka(ctx context.Context, r *rand.Rand) error {
	dice, first, pause := r.IntN(100), r.IntN(servers.Brokers), between(r, 500*time.Millisecond, 6*time.Second)
	struck := []*servers.Process{s.d.Kafka[first]}
	kind := Kill
	switch {
	case dice < 20:
		if err := s.note(kafkaServer, Hiccup, struck[0].Name); err != nil {
			return err
		}
		return s.pause(ctx, struck[0], pause)
	case dice < 35:
		kind = Outage
		struck = append(struck, s.d.Kafka[(first+1)%servers.Brokers])
	}
	if err := s.note(kafkaServer, kind, names(struck)); err != nil {
		return err
	}
	for _, p := range struck {
		p.Kill()
	}
	sleep(ctx, pause)
	return back(ctx, struck...)
}

func names(list []*servers.Process) string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.Name
	}
	return strings.Join(out, " and ")
}

// back starts processes again and waits until they answer.
func back(ctx context.Context, list ...*servers.Process) error {
	for _, p := range list {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for _, p := range list {
		if err := p.Await(ctx, recoverLimit); err != nil {
			return err
		}
	}
	return nil
}

// server strikes Redis, one node of its cluster, or ClickHouse.
func (s *Schedule) server(stage string, x servers.Server) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, r *rand.Rand) error {
		dice, pause := r.IntN(100), between(r, 200*time.Millisecond, 5*time.Second)
		switch {
		case dice < 20 && x.Disk.Small:
			if err := s.note(stage, FullDisk, x.Name); err != nil {
				return err
			}
			x.Expect(true) // Redis ends itself when it cannot write its log
			err := x.Disk.Fill()
			sleep(ctx, pause+time.Second)
			if err := errors.Join(err, x.Disk.Free(), back(ctx, x.Process)); err != nil {
				return err
			}
			x.Expect(false)
		case dice < 40:
			if err := s.note(stage, Hiccup, x.Name); err != nil {
				return err
			}
			if err := s.pause(ctx, x.Process, pause); err != nil {
				return err
			}
		default:
			if err := s.note(stage, Kill, x.Name); err != nil {
				return err
			}
			x.Kill()
			sleep(ctx, pause)
		}
		return back(ctx, x.Process)
	}
}

// link strikes one of the links to a server.
func (s *Schedule) link(stage string, links []*servers.Link) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, r *rand.Rand) error {
		l, harms := links[r.IntN(len(links))], servers.Harms()
		harm, pause := harms[r.IntN(len(harms))], between(r, 500*time.Millisecond, 6*time.Second)
		if err := s.note(stage, string(harm), l.Name); err != nil {
			return err
		}
		err := l.Hurt(harm, r)
		sleep(ctx, pause)
		return errors.Join(err, l.Heal(context.WithoutCancel(ctx)))
	}
}
