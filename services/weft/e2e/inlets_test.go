//go:build integration

package e2e

import (
	"fmt"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weft-cdp/weft/pkg/inlet/registry/registrytest"
)

// orderSchema is of the orders that a shop system writes in Avro.
const orderSchema = `{"type":"record","name":"Order","fields":[{"name":"order_no","type":"string"},{"name":"customer_no","type":"long"},
	{"name":"order_date","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},{"name":"currency","type":"string"}]}`

// connectSchema is what Debezium's JSON says of its own types.
const connectSchema = `{"type":"struct","fields":[{"field":"after","type":"struct","fields":[{"field":"id","type":"int64"},{"field":"email","type":"string"},
	{"field":"credit","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}},{"field":"born","type":"int32","name":"io.debezium.time.Date"}]}]}`

// TestForeignTopics: changes of a database's table, through Debezium, and orders in Avro, by a schema registry that is
// away when the first of them come, go through to ClickHouse: once, with their digits, as one person. Poison between
// them is rejected with its reason, and nothing else is.
func TestForeignTopics(t *testing.T) {
	registry := registrytest.New()
	defer registry.Close()
	id := registry.Add("orders-value", "AVRO", orderSchema)
	schema := avro.MustParse(orderSchema)
	var customers, orders string
	d := deploy(t, options{sources: func(d *deployment) map[string]string {
		customers, orders = d.prefix+"cdc.customers", d.prefix+"erp.orders"
		d.kafka.createTopic(customers, 1)
		d.kafka.createTopic(orders, 2)
		return map[string]string{
			"customers.yaml": fmt.Sprintf(`
name: customers
kind: kafka
trusted: true
kafka:
  topic: %s
  format: debezium
  when: op != 'd'
  mapping:
    type: "'identify'"
    userId: = text(record.id)
    traits.email: = email(record.email)
    traits.credit: $.credit
    traits.born: $.born
`, customers),
			"orders.yaml": fmt.Sprintf(`
name: orders
kind: kafka
trusted: true
kafka:
  topic: %s
  format: avro
  registry: {url: %s}
  preset: erp_order
`, orders, registry.URL),
		}
	}})

	registry.Answer(http.StatusServiceUnavailable)
	const n = 40
	now := time.Now()
	for i := range n {
		value, err := schema.Encode(map[string]any{
			"order_no": fmt.Sprintf("o-%d", i), "customer_no": int64(500 + i%10), "order_date": now, "total": big.NewRat(int64(1990+i), 100), "currency": "EUR",
		})
		require.NoError(t, err)
		d.kafka.produce(&kgo.Record{Topic: orders, Value: registrytest.Frame(id, value)})
		if i == n/2 {
			d.kafka.produce(&kgo.Record{Topic: orders, Value: registrytest.Frame(id, value[:3])}, &kgo.Record{Topic: orders, Value: []byte("{}")})
		}
	}
	envelope := func(op, state, row string) *kgo.Record {
		return record(customers, "", fmt.Sprintf(`{"schema":%s,"payload":{"op":%q,%q:%s,"source":{"ts_ms":%d},"ts_ms":%[5]d}}`, connectSchema, op, state, row, now.UnixMilli()))
	}
	for i := range 10 {
		op := "c"
		if i < 5 {
			op = "r"
		}
		d.kafka.produce(envelope(op, "after", fmt.Sprintf(`{"id":%d,"email":" P%d@Example.com","credit":"B8Y=","born":10000}`, 500+i, i)))
	}
	d.kafka.produce(envelope("d", "before", `{"id":501,"email":"x","credit":"AA==","born":0}`), record(customers, "key", ""), record(customers, "", `{"id":1}`))

	// The table's changes do not wait for the orders' registry.
	eventually(t, drainLimit, "the table's changes are in ClickHouse", func() error {
		return want("changes", 10, d.number("SELECT count() FROM events WHERE source = 'customers'"))
	})
	eventually(t, drainLimit, "the orders' partitions are held", func() error {
		return want("held partitions", 2, int(d.metric(collector, `weft_collector_inlet_held_partitions{inlet="orders"}`)))
	})
	require.Zero(t, d.number("SELECT count() FROM events WHERE source = 'orders'"))
	registry.Answer(0)
	eventually(t, drainLimit, "the orders are in ClickHouse", func() error {
		return want("orders", n, d.number("SELECT count() FROM events WHERE source = 'orders'"))
	})
	require.Equal(t, n, d.number("SELECT uniqExact(order_id) FROM events WHERE source = 'orders' AND name = 'Order Completed'"))
	require.Equal(t, []string{"19.90"}, d.rows(`SELECT extract(properties, '"total":([0-9.]+)') FROM events WHERE order_id = 'o-0'`)[0], "digit for digit")
	require.Equal(t, []string{"19.90", "1997-05-19", "p7@example.com"},
		d.rows(`SELECT extract(traits, '"credit":([0-9.]+)'), JSONExtractString(traits, 'born'), JSONExtractString(traits, 'email') FROM events WHERE source = 'customers' AND user_id = '507'`)[0])
	require.Equal(t, 5, d.number("SELECT count() FROM events WHERE source = 'customers' AND historical"), "those of the snapshot")
	eventually(t, drainLimit, "what is poison is in events_rejected", func() error {
		return want("rejected", 3, d.number("SELECT count() FROM events_rejected"))
	})
	require.Equal(t, [][]string{{"invalid_debezium", "1"}, {"invalid_format", "1"}, {"invalid_schema", "1"}},
		d.rows("SELECT reason, toString(count()) FROM events_rejected GROUP BY reason ORDER BY reason"))
	require.Equal(t, 10, d.number("SELECT uniqExact(profile_id) FROM events WHERE source IN ('customers', 'orders')"), "a customer of both systems is one person")
	t.Logf("weft audit says:\n%s", d.run("audit", "--wait", "60s"))
	d.healthy()
}
