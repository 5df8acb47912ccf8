package inlet

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weft-cdp/weft/pkg/config"
)

// Every change has its own message id, also of one row, and the same one when a connector that was restarted writes it
// again. Sources as the connectors of PostgreSQL, MySQL, SQL Server and Oracle write them.
func TestEveryChangeHasItsOwnMessageID(t *testing.T) {
	r := newReader(t, config.KafkaInlet{Format: config.FormatDebezium, Preset: "crm_contact"})
	change := func(source, op, before, after string) string {
		e := reads(t, r, fmt.Sprintf(`{"before":%s,"after":%s,"source":{%s},"op":%q,"ts_ms":1777890673000}`, before, after, source, op))
		require.NotContains(t, string(e.Body), "messageId")
		return e.MessageID
	}
	const silver, gold = `{"id":7,"email":"a@example.com","tier":"silver"}`, `{"id":7,"email":"a@example.com","tier":"gold"}`
	for name, source := range map[string]string{
		"postgresql": `"version":"3.1","connector":"postgresql","ts_ms":1777890672123,"snapshot":"false","sequence":"[null,\"42\"]","schema":"public","table":"c","txId":5,"lsn":%d`,
		"mysql":      `"version":"3.1","connector":"mysql","ts_ms":1777890672000,"snapshot":"false","table":"c","server_id":1,"gtid":null,"file":"b.3","pos":%d,"row":0`,
		"sqlserver":  `"version":"3.1","connector":"sqlserver","ts_ms":1777890672000,"snapshot":"false","table":"c","change_lsn":"0:%d","commit_lsn":"0:9","event_serial_no":1`,
		"oracle":     `"version":"3.1","connector":"oracle","ts_ms":1777890672000,"snapshot":"false","table":"c","scn":"%d","rs_id":"1","ssn":0`,
	} {
		at := func(place int) string { return fmt.Sprintf(source, place) }
		first := change(at(42), "u", silver, gold)
		require.Regexp(t, `^change:[0-9a-f]{32}$`, first, name)
		again := strings.NewReplacer(`"3.1"`, `"3.2"`, `"snapshot":"false"`, `"snapshot":"last"`, `[null,`, `[\"40\",`).Replace(at(42)) + `,"ts_us":1777890672123000`
		require.Equal(t, first, change(again, "u", silver, gold), "%s: written again by a newer connector", name)
		ids := map[string]bool{first: true}
		for _, id := range []string{
			change(at(43), "u", gold, silver), change(at(44), "u", silver, gold), change(at(45), "d", gold, "null"), // the row goes back and forth
			change(at(42), "d", silver, "null"), change(at(42), "c", "null", silver), // another key: both stand at one place
			change(at(42), "c", "null", strings.Replace(silver, "7", "8", 1)), // rows of one COPY
		} {
			require.False(t, ids[id], "%s: %s is of two changes", name, id)
			ids[id] = true
		}
	}
	require.Empty(t, change(`"table":"c","ts_ms":1777890672123`, "u", silver, gold), "nothing tells a repetition from another change")
	require.Empty(t, change(`"lsn":null`, "u", silver, gold))
}

// A message id that names the row would drop all its changes but one: presets give none to Debezium's records. One that
// the source itself maps stays.
func TestPresetsNameNoRowsOfDebezium(t *testing.T) {
	const record = `{"after":{"receipt":"17","store":"Graz","sold_at":"2026-05-04","card":"1","total":2},"source":{"lsn":1},"op":"c"}`
	require.NotContains(t, string(reads(t, newReader(t, config.KafkaInlet{Format: config.FormatDebezium, Preset: "till_sale"}), record).Body), "messageId")
	own := newReader(t, config.KafkaInlet{Format: config.FormatDebezium, Preset: "till_sale", Mapping: map[string]string{"messageId": "$.receipt"}})
	require.Contains(t, string(reads(t, own, record).Body), `"messageId":"17"`)
}
