//go:build integration

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
)

// rebuiltShoppers live before the loss, in carts that are decided and carts that wait.
const rebuiltShoppers = 30

// TestRebuild loses all of Redis after Kafka's retention has cut the topics behind the stitcher. Each stage refuses
// to start, is rebuilt from Kafka and ClickHouse, and goes on: the same profiles, audiences and receipts, no mail
// twice, and carts that waited get theirs.
func TestRebuild(t *testing.T) {
	t.Parallel()
	const delay = 6 * time.Second
	d := deploy(t, options{delay: delay.String()})
	live := func(i int) shopper { return newShopper(fmt.Sprintf("r%03d", i)) }
	for i := range rebuiltShoppers {
		s := live(i)
		phone, laptop := event{"anonymousId": s.phone}, event{"anonymousId": s.laptop}
		d.send(added(phone, s.user+"-1", "p1"), with(laptop, event{"type": "page", "name": "Shoes", "messageId": "page-" + s.user}))
		d.send(identify(s.phone, s.user, s.email), identify(s.laptop, s.user, s.email))
		if i%3 == 0 {
			d.send(ordered(laptop, s.user+"-1", "order-"+s.user))
		}
	}
	eventually(t, settleLimit, "every cart has its receipt", func() error {
		return want("receipts", rebuiltShoppers, d.number("SELECT uniqExact(receipt) FROM messages"))
	})
	d.run("audit", "--wait", "3m")
	profiles := func() map[string]string {
		out := map[string]string{}
		for i := range rebuiltShoppers {
			p, err := d.profile("user_id", live(i).user)
			require.NoError(t, err)
			delete(p, "freshness")
			b, err := json.Marshal(p)
			require.NoError(t, err)
			out[live(i).user] = string(b)
		}
		return out
	}
	before, mails := profiles(), len(d.mail.all())
	d.send(added(event{"anonymousId": live(0).laptop}, "waits", "p2")) // decided after the loss
	d.run("audit", "--wait", "3m")
	for _, name := range []string{activator, builder, stitcher} {
		require.NoError(t, d.processes[name].stop())
	}
	d.kafka.cut(d.prefix, d.prefix+"events.identified", d.prefix+"audiences.changed", d.prefix+"activations.requested", d.prefix+"activations.settled")
	require.NoError(t, deleteKeys(context.Background(), d.prefix))

	for _, stage := range []string{"identity-stitcher", "profile-builder", "activator", "activator-deliver"} {
		t.Log(d.run("rebuild", stage))
	}
	for _, name := range []string{stitcher, builder, activator} {
		d.processes[name].start()
	}
	d.healthy()
	eventually(t, settleLimit, "the cart that waited has its receipt", func() error {
		return want("receipts", 1, d.number("SELECT count() FROM messages WHERE cart_id = 'waits'"))
	})
	after := profiles()
	for i := 1; i < rebuiltShoppers; i++ { // the first has shopped since
		require.Equal(t, before[live(i).user], after[live(i).user])
	}
	require.Len(t, d.mail.all(), mails+1, "the cart that waited, and nobody else's")

	// A repetition is still one, and a device is still its owner's.
	s := live(5)
	d.send(with(event{"anonymousId": s.laptop}, event{"type": "page", "name": "Shoes", "messageId": "page-" + s.user}))
	d.send(with(event{"anonymousId": s.laptop}, event{"type": "page", "name": "Boots"}))
	d.run("audit", "--wait", "3m")
	p, err := d.profile("anonymous_id", s.phone)
	require.NoError(t, err)
	require.Equal(t, json.Number("5"), p["counts"].(map[string]any)["events"])
	require.Equal(t, rebuiltShoppers+1, d.number("SELECT uniqExact(receipt) FROM messages"))
	require.Equal(t, rebuiltShoppers+1, d.number("SELECT count() FROM messages"), "a receipt twice")
	require.Zero(t, d.number("SELECT count() FROM (SELECT profile_id, audience, groupArray(change) AS c FROM (SELECT * FROM audience_changes ORDER BY version) GROUP BY profile_id, audience HAVING arrayExists((a, b) -> a = b, arrayPopBack(c), arrayPopFront(c)))"),
		"a membership that began or ended twice")
}

// cut deletes what journey-writer has stored of topics, as retention does.
func (f *foreign) cut(prefix string, topics ...string) {
	f.t.Helper()
	for _, name := range topics {
		offsets, err := f.admin.FetchOffsets(f.t.Context(), prefix+"journey-writer."+name)
		require.NoError(f.t, err)
		to := kadm.Offsets{}
		offsets.Each(func(o kadm.OffsetResponse) {
			if o.Topic == name && o.At > 0 {
				to.AddOffset(name, o.Partition, o.At, -1)
			}
		})
		_, err = f.admin.DeleteRecords(f.t.Context(), to)
		require.NoError(f.t, err)
	}
}
