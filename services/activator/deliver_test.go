package activator

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/connector"
	"github.com/weft-cdp/weft/pkg/journey"
	"github.com/weft-cdp/weft/pkg/keyed"
	"github.com/weft-cdp/weft/pkg/stream"
)

func gauge(t *testing.T, g prometheus.Gauge) int {
	t.Helper()
	var m dto.Metric
	require.NoError(t, g.Write(&m))
	return int(m.GetGauge().GetValue())
}

// channel is a channel that answers as it is told; the last answer stays.
type channel struct {
	idempotent bool
	mu         sync.Mutex
	answers    []error
	got        []connector.Message
	during     func()
}

func (c *channel) Idempotent() bool { return c.idempotent }

func (c *channel) Send(_ context.Context, m connector.Message) (connector.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, m)
	if c.during != nil {
		c.during()
	}
	var err error
	if len(c.answers) > 0 {
		err = c.answers[0]
	}
	if len(c.answers) > 1 {
		c.answers = c.answers[1:]
	}
	return connector.Result{Detail: "taken"}, err
}

func transient() error { return connector.Fail(connector.Transient, "come back") }

// willing is people who all want mail.
func (e *env) willing() people {
	return people{
		state: func(context.Context, string) (*journey.State, bool, error) {
			return &journey.State{Brands: map[string]*journey.Brand{"main": {Consent: map[string]journey.Yes{"email/marketing": {OK: true}}}}}, false, nil
		},
		suppressed: func(string) bool { return false },
	}
}

// deliverer is the deliver stage of one process.
func (e *env) deliverer(c *channel) *delivery {
	e.t.Helper()
	m, err := newMetrics(nil)
	require.NoError(e.t, err)
	_, st := e.connect()
	d := newDelivery(e.topics, e.willing(), map[string]connector.Sender{"email": c}, Deps{Store: st, Log: testLog(e.t), Now: e.now}, m)
	d.patience.first, d.patience.longest = time.Millisecond, time.Millisecond
	return d
}

func (e *env) request(id string) keyed.Record {
	e.t.Helper()
	b, err := journey.Encode(journey.Request{
		ID: id, Receipt: "r-" + id, Journey: "j", Brand: "main", Profile: "ada", Channel: "email", Purpose: "marketing", To: "ada@example.com", DecidedAt: e.now().UnixMilli(),
		Headers: map[string]string{"List-Unsubscribe": "<x>"},
	})
	require.NoError(e.t, err)
	return keyed.Record{Record: stream.Record{Key: []byte("ada"), Value: b}}
}

func plan(t *testing.T, d *delivery, rs ...keyed.Record) []journey.Receipt {
	t.Helper()
	c, err := d.Plan(t.Context(), keyed.Slot{}, rs)
	require.NoError(t, err)
	return receiptsOf(t, c.Outputs)
}

func receiptsOf(t *testing.T, outs []keyed.Output) []journey.Receipt {
	t.Helper()
	var got []journey.Receipt
	for _, o := range outs {
		var r journey.Receipt
		require.NoError(t, json.Unmarshal(o.Value, &r))
		got = append(got, r)
	}
	return got
}

func how(r journey.Receipt) string { return r.Outcome + "/" + r.Reason }

func TestDeliveredOnce(t *testing.T) {
	e := newEnv(t)
	c := &channel{}
	d := e.deliverer(c)
	r := e.request("m1")
	require.Equal(t, "delivered/sent", how(plan(t, d, r)[0]))
	require.Equal(t, "delivered/sent", how(plan(t, d, r)[0]), "the change was refused: the process remembers")
	require.Equal(t, "delivered/sent", how(plan(t, e.deliverer(c), r)[0]), "the process died: Redis remembers")
	require.Len(t, c.got, 1)
	require.Equal(t, map[string]string{"List-Unsubscribe": "<x>", "Weft-Receipt": "r-m1"}, c.got[0].Headers)
	change, err := d.Plan(t.Context(), keyed.Slot{}, []keyed.Record{r})
	require.NoError(t, err)
	require.NoError(t, d.Published(t.Context(), keyed.Slot{}, change.Outputs))
	require.Empty(t, d.known)
}

// A channel that panics on a message ends that one, with an end that says what is known: nothing. A panic in a
// goroutine of Plan would end the process, and the next one would meet the message again.
func TestPanicOfAChannelEndsItsMessageOnly(t *testing.T) {
	e := newEnv(t)
	c := &channel{}
	c.during = func() {
		if c.got[len(c.got)-1].ID == "m2" {
			panic("a defect")
		}
	}
	d := e.deliverer(c)
	got := plan(t, d, e.request("m1"), e.request("m2"), e.request("m3"))
	require.Equal(t, []string{"delivered/sent", "unknown/crash_during_send", "delivered/sent"}, []string{how(got[0]), how(got[1]), how(got[2])})
	require.Equal(t, "unknown/crash_during_send", how(plan(t, d, e.request("m2"))[0]))
	require.Equal(t, "unknown/crash_during_send", how(plan(t, e.deliverer(c), e.request("m2"))[0]), "its mark stands: nobody tries it again")
	require.Len(t, c.got, 3)
}

// A process dies while it hands a message over.
func TestCrashDuringSend(t *testing.T) {
	for _, idempotent := range []bool{false, true} {
		e := newEnv(t)
		c := &channel{idempotent: idempotent}
		dead := e.deliverer(c)
		r := e.request("m1")
		// Another process finds what a crash at that moment leaves behind.
		var found []journey.Receipt
		c.during = func() {
			c.during = nil
			heir := e.deliverer(&channel{idempotent: idempotent})
			found = plan(t, heir, r)
			if idempotent {
				require.Equal(t, "m1", heir.senders["email"].(*channel).got[0].ID, "sent again under the same key")
			} else {
				require.Empty(t, heir.senders["email"].(*channel).got, "never sent twice")
			}
		}
		plan(t, dead, r)
		want := "unknown/crash_during_send"
		if idempotent {
			want = "delivered/sent"
		}
		require.Equal(t, want, how(found[0]))
	}
}

func TestHowAttemptsEnd(t *testing.T) {
	unknown := connector.Fail(connector.Unknown, "no answer")
	own := connector.Fail(connector.Transient, "grey list")
	own.Own = true
	cases := map[string]struct {
		idempotent bool
		answers    []error
		pass       time.Duration // on each attempt
		want       string
		attempts   int
	}{
		"back after a while":            {answers: []error{transient(), transient(), nil}, want: "delivered/sent", attempts: 3},
		"refused":                       {answers: []error{transient(), connector.Fail(connector.Permanent, "no such user")}, want: "failed/refused", attempts: 2},
		"no answer":                     {answers: []error{unknown}, want: "unknown/no_answer", attempts: 1},
		"no answer, and the key helps":  {idempotent: true, answers: []error{unknown, nil}, want: "delivered/sent", attempts: 2},
		"no class is no claim":          {answers: []error{errors.New("odd")}, want: "unknown/no_answer", attempts: 1},
		"away for long":                 {answers: []error{transient()}, pass: 4 * time.Minute, want: "failed/channel_unavailable", attempts: 3},
		"put off for long":              {answers: []error{own}, pass: time.Minute, want: "failed/channel_unavailable", attempts: 3},
		"away for long after no answer": {idempotent: true, answers: []error{unknown, transient()}, pass: 4 * time.Minute, want: "unknown/no_answer", attempts: 3},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			c := &channel{idempotent: tc.idempotent, answers: tc.answers, during: func() { e.pass(tc.pass) }}
			got := plan(t, e.deliverer(c), e.request("m1"))
			require.Equal(t, tc.want, how(got[0]), got[0].Detail)
			require.Len(t, c.got, tc.attempts)
		})
	}
}

func TestTooOldToBeTrue(t *testing.T) {
	e := newEnv(t)
	c := &channel{}
	r, begun := e.request("m1"), e.request("m2")
	d := e.deliverer(c)
	ok, err := d.begin(t.Context(), "attempt:m2:1")
	require.NoError(t, err)
	require.True(t, ok)
	e.pass(2 * time.Hour)
	got := plan(t, d, r, begun)
	require.Equal(t, "failed/expired", how(got[0]))
	require.Equal(t, "unknown/crash_during_send", how(got[1]))
	require.Empty(t, c.got)

	d.senders = nil
	require.Equal(t, "suppressed/channel_off", how(plan(t, d, e.request("m3"))[0]))
}

// Between attempts the person says no, or cannot be read.
func TestLooksAgainBeforeEveryAttempt(t *testing.T) {
	no := map[string]*journey.Brand{"main": {Receive: map[string]journey.Yes{"email": {At: 1}}}}
	unknown := connector.Fail(connector.Unknown, "no answer")
	for name, tc := range map[string]struct {
		idempotent bool
		answer     error
		want       string
	}{
		"not taken":                             {answer: transient(), want: "suppressed/unsubscribed"},
		"taken or not, and it would know again": {idempotent: true, answer: unknown, want: "unknown/no_answer"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			c := &channel{idempotent: tc.idempotent, answers: []error{tc.answer}}
			d := e.deliverer(c)
			c.during = func() {
				d.people.state = func(context.Context, string) (*journey.State, bool, error) {
					return &journey.State{Brands: no}, false, nil
				}
			}
			r := e.request("m1")
			require.Equal(t, tc.want, how(plan(t, d, r)[0]))
			require.Equal(t, tc.want, how(plan(t, e.deliverer(&channel{}), r)[0]), "the next owner finds the end")
			require.Len(t, c.got, 1)
		})
	}

	e := newEnv(t)
	c := &channel{}
	d := e.deliverer(c)
	sent := e.request("sent")
	plan(t, d, sent)
	for want, s := range map[string]*journey.State{"away": nil, "consent": {}} {
		heir := e.deliverer(c)
		heir.people.state = func(context.Context, string) (*journey.State, bool, error) {
			if s == nil {
				return nil, false, errors.New("redis is away")
			}
			return s, false, nil
		}
		_, err := heir.Plan(t.Context(), keyed.Slot{}, []keyed.Record{e.request("m1")})
		require.ErrorContains(t, err, want)
		require.Equal(t, "delivered/sent", how(plan(t, heir, sent)[0]), "what has its end needs no look")
	}
	require.Len(t, c.got, 1)
	require.Equal(t, "delivered/sent", how(plan(t, d, e.request("m1"))[0]), "held, not lost")
}

// One message that hangs on a grey list does not lose what the others of its batch came to.
func TestHeldBatchKeepsItsEnds(t *testing.T) {
	e := newEnv(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := &channel{answers: []error{nil, transient()}}
	c.during = func() {
		if len(c.got) == 3 {
			cancel()
		}
	}
	d := e.deliverer(c)
	rs := []keyed.Record{e.request("m1"), e.request("m2")}
	_, err := d.Plan(ctx, keyed.Slot{}, rs)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, d.known, 1)
	c.answers = nil
	for _, r := range plan(t, d, rs...) {
		require.Equal(t, "delivered/sent", how(r))
	}
	require.Len(t, c.got, 4)
}
