package stream

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go/protocol"
)

// apiNames are the requests of this package, as labels: a closed set.
var apiNames = map[protocol.ApiKey]string{ //nolint:gochecknoglobals // a constant
	protocol.Produce: "produce", protocol.Fetch: "fetch", protocol.ListOffsets: "list_offsets", protocol.Metadata: "metadata",
	protocol.OffsetCommit: "offset_commit", protocol.OffsetFetch: "offset_fetch", protocol.FindCoordinator: "find_coordinator",
	protocol.JoinGroup: "join_group", protocol.SyncGroup: "sync_group", protocol.Heartbeat: "heartbeat",
	protocol.LeaveGroup: "leave_group", protocol.InitProducerId: "init_producer_id",
}

const otherAPI = "other"

// wireMetrics are those of a client's requests.
type wireMetrics struct {
	apis               map[protocol.ApiKey]*apiMetrics
	other              *apiMetrics
	fetched, produced  prometheus.Counter // records
	retries, throttled prometheus.Counter
	deferred           prometheus.Counter
}

// apiMetrics are those of one kind of request.
type apiMetrics struct{ answered, failed, sent, received prometheus.Counter }

func newWireMetrics(reg prometheus.Registerer) (*wireMetrics, error) {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_stream_" + name, Help: help}, labels)
	}
	requests := vec("requests_total", "Requests to Kafka, by API and whether there was an answer.", "api", "outcome")
	sent := vec("sent_bytes_total", "Bytes of requests to Kafka, by API.", "api")
	received := vec("received_bytes_total", "Bytes of Kafka's answers, by API.", "api")
	records := vec("records_total", "Records read from Kafka (in) and acknowledged by it (out).", "direction")
	m := &wireMetrics{
		apis:    make(map[protocol.ApiKey]*apiMetrics, len(apiNames)),
		fetched: records.WithLabelValues("in"), produced: records.WithLabelValues("out"),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_stream_retries_total", Help: "Attempts at something that had failed before.",
		}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weft_stream_throttled_seconds_total", Help: "Time for which brokers held back this client, by a quota.",
		}),
	}
	m.deferred = prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_stream_hot_key_deferred_total",
		Help: "Times that records of one key were held back for a later request, because others of its partition waited."})
	api := func(name string) *apiMetrics {
		return &apiMetrics{
			answered: requests.WithLabelValues(name, "answered"), failed: requests.WithLabelValues(name, "failed"),
			sent: sent.WithLabelValues(name), received: received.WithLabelValues(name),
		}
	}
	for key, name := range apiNames {
		m.apis[key] = api(name)
	}
	m.other = api(otherAPI)
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{requests, sent, received, records, m.retries, m.throttled, m.deferred} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *wireMetrics) of(key protocol.ApiKey) *apiMetrics {
	if a, ok := m.apis[key]; ok {
		return a
	}
	return m.other
}

// done counts a request.
func (a *apiMetrics) done(err error) {
	if err != nil {
		a.failed.Inc()
	} else {
		a.answered.Inc()
	}
}

// throttle notes for how long a broker holds this client back.
func (m *wireMetrics) throttle(d time.Duration) {
	if d > 0 {
		m.throttled.Add(d.Seconds())
	}
}
