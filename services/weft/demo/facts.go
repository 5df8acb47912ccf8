package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/services/weft/audit"
)

// Warehouse is what the report asks of ClickHouse. *warehouse.Client is one.
type Warehouse interface {
	audit.Warehouse
	Select(ctx context.Context, dest any, sql string, args ...any) error
	ReloadPersons(ctx context.Context) error
}

// Facts is what Weft made of the shop, as ClickHouse and Kafka have it.
type Facts struct {
	Audit     audit.Report
	Lags      []audit.Lag
	People    uint64 // with an event of this shop
	Joins     uint64 // profiles that became part of another
	Profiles  profiles
	Orders    orders
	Receipts  []receipt
	Funnel    []step
	Carts     []carts
	Recovered []recovered
	Rejected  []rejection
}

type counted struct {
	N uint64 `ch:"n"`
}

type profiles struct {
	People  uint64 `ch:"people"`
	Orders  uint64 `ch:"orders"`
	Revenue string `ch:"revenue"`
}

type orders struct {
	Orders  uint64 `ch:"orders"`
	Revenue string `ch:"revenue"`
}

type receipt struct {
	Cart    string    `ch:"cart_id"`
	Outcome string    `ch:"outcome"`
	Reason  string    `ch:"reason"`
	Due     time.Time `ch:"due_at"`
	Settled time.Time `ch:"settled_at"`
}

func (r receipt) ending() Ending { return Ending{r.Outcome, r.Reason} }

// mayHaveReached says that a message left the house, or perhaps did.
func (r receipt) mayHaveReached() bool { return r.Outcome == "delivered" || r.Outcome == "unknown" }

type step struct {
	Device   string `ch:"device"`
	Viewed   uint64 `ch:"viewed"`
	Added    uint64 `ch:"added"`
	Checkout uint64 `ch:"checkout"`
	Ordered  uint64 `ch:"ordered"`
}

type carts struct {
	Status string `ch:"status"`
	Carts  uint64 `ch:"carts"`
	Value  string `ch:"value"`
}

type recovered struct {
	Carts   uint64 `ch:"recovered"`
	Revenue string `ch:"revenue"`
}

type rejection struct {
	Source string `ch:"source"`
	Reason string `ch:"reason"`
	Rows   uint64 `ch:"rows"`
}

// window is a time range as parameterised views take it.
func window(from, to time.Time) string {
	const layout = "2006-01-02 15:04:05"
	return fmt.Sprintf("from = '%s', to = '%s', brand = ''", from.UTC().Format(layout), to.UTC().Format(layout))
}

// gather asks everything once.
func (r *Run) gather(ctx context.Context) (Facts, error) {
	var f Facts
	var err error
	if err := r.opt.Warehouse.ReloadPersons(ctx); err != nil {
		return f, fmt.Errorf("reload who is who: %w", err)
	}
	if f.Lags, err = r.lags(ctx); err != nil {
		return f, err
	}
	opt := audit.Options{Topics: r.opt.Topics, Since: r.opened}
	if f.Audit, err = audit.Run(ctx, opt, r.opt.Log, r.opt.Warehouse); err != nil {
		return f, err
	}
	var people, joins []counted
	var total []profiles
	var bought []orders
	run, from, to := r.plan.Run+"-", r.opened.Add(-time.Minute), time.Now().Add(time.Hour)
	for _, q := range []struct {
		dest any
		sql  string
		args []any
	}{
		{&people, "SELECT uniqExact(person_id) AS n FROM ${database}.events_by_person WHERE startsWith(message_id, ?) OR startsWith(order_id, ?)", []any{run, run}},
		{&joins, "SELECT uniqExact(loser) AS n FROM ${database}.merges WHERE merged_at >= fromUnixTimestamp64Milli(?, 'UTC')", []any{from.UnixMilli()}},
		{&total, "SELECT count() AS people, sum(orders) AS orders, toString(sum(revenue['" + Currency + "'])) AS revenue FROM ${database}.people", nil},
		{&bought, "SELECT count() AS orders, toString(sum(amount)) AS revenue FROM ${database}.orders WHERE startsWith(order_id, ?) AND currency = '" + Currency + "'", []any{run}},
		{&f.Receipts, "SELECT cart_id, outcome, reason, due_at, settled_at FROM ${database}.messages WHERE startsWith(cart_id, ?)", []any{run}},
		{&f.Funnel, "SELECT device, sum(viewed) AS viewed, sum(added) AS added, sum(checkout) AS checkout, sum(ordered) AS ordered FROM ${database}.funnel(" +
			window(from, to) + ", window = 86400) GROUP BY device ORDER BY viewed DESC", nil},
		{&f.Carts, fmt.Sprintf("SELECT status, count() AS carts, toString(sum(cart_value)) AS value FROM ${database}.carts(within = %d) WHERE startsWith(cart_id, ?) GROUP BY status ORDER BY carts DESC",
			r.within()), []any{run}},
		{&f.Recovered, "SELECT toUInt64(sum(recovered)) AS recovered, toString(sum(revenue)) AS revenue FROM ${database}.recovery(" +
			window(from, to) + ", within = 86400)", nil},
		{&f.Rejected, "SELECT source, reason, count() AS rows FROM ${database}.events_rejected WHERE received_at >= fromUnixTimestamp64Milli(?, 'UTC') AND reason != 'duplicate' GROUP BY source, reason ORDER BY rows DESC",
			[]any{from.UnixMilli()}},
	} {
		if err := r.opt.Warehouse.Select(ctx, q.dest, q.sql, q.args...); err != nil {
			return f, fmt.Errorf("ask for the report: %w", err)
		}
	}
	f.People, f.Joins, f.Profiles, f.Orders = first(people).N, first(joins).N, first(total), first(bought)
	return f, nil
}

func first[T any](list []T) T {
	var zero T
	if len(list) == 0 {
		return zero
	}
	return list[0]
}

// within is the journey's delay in whole seconds, at least one: what the report calls abandoned.
func (r *Run) within() int { return max(1, int((r.plan.Delay+time.Second-1)/time.Second)) }

// lags looks at every stage on every topic it reads.
func (r *Run) lags(ctx context.Context) ([]audit.Lag, error) {
	t := r.opt.Topics
	list := []audit.Lag{
		{Stage: topic.StageStitcher, Topic: t.EventsCollected()},
		{Stage: topic.StageBuilder, Topic: t.EventsIdentified()},
		{Stage: topic.StageDecide, Topic: t.EventsIdentified()},
		{Stage: topic.StageDeliver, Topic: t.ActivationsRequested()},
	}
	for _, name := range []string{
		t.EventsIdentified(), t.EventsRejected(), t.ProfilesChanged(), t.AudiencesChanged(), t.ActivationsRequested(), t.ActivationsSettled(),
	} {
		list = append(list, audit.Lag{Stage: topic.StageWriter, Topic: name})
	}
	var out []audit.Lag
	for _, l := range list {
		n, err := r.opt.Log.Behind(ctx, t.Group(l.Stage, l.Topic), l.Topic)
		if err != nil {
			return nil, fmt.Errorf("how far %s is behind: %w", l.Stage, err)
		}
		if n > 0 {
			l.Records = n
			out = append(out, l)
		}
	}
	return out, nil
}
