package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/warehouse"
	"github.com/weft-cdp/weft/services/weft/audit"
	"github.com/weft-cdp/weft/services/weft/demo"
)

// maxDoubles is how many double rows are asked for.
const maxDoubles = 50

// Facts is what Weft made of the shop.
type Facts struct {
	Behind   []Lag
	Rows     []row
	Rejected []rejection
	Sales    []sale
	Arrived  map[string]place   // by message id: where events.collected has it first
	Profiles map[string]profile // by person
	Receipts []receipt
	Bare     uint64 // merges without evidence
	Doubles  []warehouse.Double
}

// Lag is how far a stage is behind on a topic that it reads.
type Lag struct {
	Stage, Topic string
	Records      int64
}

type row struct {
	Message string `ch:"message_id"`
	Person  string `ch:"person"`
	Source  string `ch:"source"`
}

type rejection struct {
	Message string `ch:"message_id"` // as the sender gave it
	Origin  string `ch:"origin"`
	Reason  string `ch:"reason"`
}

// sale is one record of the till's topic.
type sale struct {
	action string
	id     string // the message id that Weft must give it
}

// place is where a record stands in a topic.
type place struct {
	partition int
	offset    int64
}

// profile is what is looked at of a profile's document.
type profile struct {
	Counts struct {
		Events int64 `json:"events"`
	} `json:"counts"`
	Orders  int64             `json:"orders"`
	Revenue map[string]string `json:"revenue"`
}

type document struct {
	Person  string `ch:"person"`
	Profile string `ch:"document"`
}

type receipt struct {
	Receipt string    `ch:"receipt"`
	Message string    `ch:"message"`
	Cart    string    `ch:"cart_id"`
	Outcome string    `ch:"outcome"`
	Reason  string    `ch:"reason"`
	Due     time.Time `ch:"due_at"`
	Settled time.Time `ch:"settled_at"`
}

// Eyes are how the oracle sees: past every proxy.
type Eyes struct {
	Kafka     *stream.Client
	Warehouse *warehouse.Client
	Topics    topic.Set
}

// Lags looks at every stage on every topic that it reads.
func (e Eyes) Lags(ctx context.Context) ([]Lag, error) {
	t := e.Topics
	list := []Lag{
		{Stage: topic.StageCollector, Topic: demo.TillTopic},
		{Stage: topic.StageStitcher, Topic: t.EventsCollected()},
		{Stage: topic.StageBuilder, Topic: t.EventsIdentified()},
		{Stage: topic.StageDecide, Topic: t.EventsIdentified()},
		{Stage: topic.StageDeliver, Topic: t.ActivationsRequested()},
	}
	for _, name := range []string{
		t.EventsIdentified(), t.EventsRejected(), t.ProfilesChanged(), t.AudiencesChanged(), t.ActivationsRequested(), t.ActivationsSettled(),
	} {
		list = append(list, Lag{Stage: topic.StageWriter, Topic: name})
	}
	log := audit.FromStream(e.Kafka)
	var out []Lag
	for _, l := range list {
		n, err := log.Behind(ctx, t.Group(l.Stage, l.Topic), l.Topic)
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

// Look asks everything once.
func (e Eyes) Look(ctx context.Context) (*Facts, error) {
	f := &Facts{Profiles: map[string]profile{}}
	var err error
	if f.Behind, err = e.Lags(ctx); err != nil {
		return nil, err
	}
	if f.Sales, err = e.sales(ctx); err != nil {
		return nil, err
	}
	if f.Arrived, err = e.arrived(ctx); err != nil {
		return nil, err
	}
	if err := e.Warehouse.ReloadPersons(ctx); err != nil {
		return nil, fmt.Errorf("reload who is who: %w", err)
	}
	var documents []document
	var bare []struct {
		N uint64 `ch:"n"`
	}
	for _, q := range []struct {
		dest any
		sql  string
	}{
		{&f.Rows, "SELECT message_id, toString(person_id) AS person, toString(source) AS source FROM ${database}.events_by_person"},
		{&f.Rejected, "SELECT if(isValidJSON(body), JSONExtractString(body, 'messageId'), '') AS message_id, origin, toString(reason) AS reason" +
			" FROM ${database}.events_rejected WHERE reason != 'duplicate'"},
		{&documents, "SELECT toString(profile_id) AS person, argMax(profile, version) AS document FROM ${database}.profiles" +
			" GROUP BY profile_id HAVING NOT argMax(tombstone, version)"},
		{&f.Receipts, "SELECT receipt, message, cart_id, toString(outcome) AS outcome, toString(reason) AS reason," +
			" assumeNotNull(due_at) AS due_at, settled_at FROM ${database}.receipts"},
		{&bare, "SELECT count() AS n FROM ${database}.merges WHERE empty(evidence)"},
	} {
		if err := e.Warehouse.Select(ctx, q.dest, q.sql); err != nil {
			return nil, fmt.Errorf("ask ClickHouse: %w", err)
		}
	}
	for _, b := range bare {
		f.Bare = b.N
	}
	for _, d := range documents {
		var p profile
		if err := json.Unmarshal([]byte(d.Profile), &p); err != nil {
			return nil, fmt.Errorf("read the profile of %s: %w", d.Person, err)
		}
		f.Profiles[d.Person] = p
	}
	if f.Doubles, err = e.Warehouse.Doubles(ctx, maxDoubles); err != nil {
		return nil, err
	}
	return f, nil
}

// read shows every record of a topic.
func (e Eyes) read(ctx context.Context, topicName string, see func(partition int, r *stream.Record) error) error {
	ends, err := e.Kafka.EndOffsets(ctx, topicName)
	if err != nil {
		return fmt.Errorf("read %s: %w", topicName, err)
	}
	log := audit.FromStream(e.Kafka)
	for p, end := range ends {
		if err := log.Read(ctx, topicName, p, 0, end, func(r *stream.Record) error { return see(p, r) }); err != nil {
			return fmt.Errorf("read %s: %w", topicName, err)
		}
	}
	return nil
}

// sales reads the till's topic from its beginning: what is in it is the truth of the till, because a producer that
// was not answered may have written all the same.
func (e Eyes) sales(ctx context.Context) ([]sale, error) {
	var out []sale
	err := e.read(ctx, demo.TillTopic, func(partition int, r *stream.Record) error {
		var body struct {
			Action string `json:"action"`
		}
		if err := json.Unmarshal(r.Value, &body); err != nil {
			return err
		}
		out = append(out, sale{action: body.Action, id: fmt.Sprintf("%s:%d:%d", demo.TillTopic, partition, r.Offset)})
		return nil
	})
	return out, err
}

// arrived reads where each event was first written behind the doors: that is the order in which Weft takes them. A
// repetition behind it is dropped.
func (e Eyes) arrived(ctx context.Context) (map[string]place, error) {
	out := map[string]place{}
	err := e.read(ctx, e.Topics.EventsCollected(), func(partition int, r *stream.Record) error {
		id, _ := topic.Get(r.Headers, topic.HeaderMessageID)
		if _, again := out[id]; !again {
			out[id] = place{partition, r.Offset}
		}
		return nil
	})
	return out, err
}
