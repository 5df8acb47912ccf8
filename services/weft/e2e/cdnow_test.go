//go:build integration

package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"
)

const (
	cdnowFile    = "testdata/cdnow.txt.gz"
	cdnowMapping = "schemas/replay/cdnow.yaml"
	purchases    = 69_659
	customers    = 23_570
	// arrivalLimit bounds the way of all purchases through five processes on a busy machine.
	arrivalLimit = 4 * time.Minute
	// repeated is how many purchases are sent a second time.
	repeated = 10_000
	// oldCarts is how many carts of 1997 are sent.
	oldCarts = 1000
	// sample is how many customers are asked of the profile API.
	sample = 200
)

// cdnowFacts are what the data's own description says must be found. events is how ClickHouse tells it from the events,
// profiles from the profiles; what those hold only order by order, histories.facts tells under the same name.
var cdnowFacts = []struct{ name, wanted, events, profiles string }{
	{"purchases", "69659", "SELECT count() FROM orders", "SELECT sum(orders) FROM people"},
	{zeroValue, "80", "SELECT countIf(amount = 0) FROM orders", ""},
	{"customers", "23570", "SELECT uniqExact(person_id) FROM orders", "SELECT count() FROM people"},
	{"of whom bought once", "11908", "SELECT countIf(n = 1) FROM (SELECT count() AS n FROM orders GROUP BY person_id)", "SELECT countIf(orders = 1) FROM people"},
	{"CDs", "167881", "SELECT toUInt64(sum(quantity)) FROM events_by_person WHERE action = 'order completed'", "SELECT sum(units) FROM people"},
	{"revenue in dollars", "2500315.63", "SELECT sum(amount) FROM orders WHERE currency = 'USD'", "SELECT sum(revenue['USD']) FROM people"},
	{"first day", "1997-01-01", "SELECT toDate(min(ordered_at)) FROM orders", "SELECT toDate(min(first_seen)) FROM people"},
	{"last day", "1998-06-30", "SELECT toDate(max(ordered_at)) FROM orders", "SELECT toDate(max(last_seen)) FROM people"},
	{inMonth + "1997-01", "8928", "SELECT countIf(toYYYYMM(ordered_at) = 199701) FROM orders", ""},
	{inMonth + "1997-02", "11272", "SELECT countIf(toYYYYMM(ordered_at) = 199702) FROM orders", ""},
	{inMonth + "1997-03", "11598", "SELECT countIf(toYYYYMM(ordered_at) = 199703) FROM orders", ""},
	{busyDays, "1774", "SELECT countIf(n > 1) FROM (SELECT count() AS n FROM orders GROUP BY person_id, toDate(ordered_at))", ""},
	{surplusRows, "255", equalRows("sum(n - 1)"), ""},
	{distinctRows, "215", equalRows("count()"), ""},
}

// Facts that need a purchase by itself.
const (
	zeroValue    = "of which with a value of zero"
	inMonth      = "purchases in "
	busyDays     = "customer-days with more than one purchase"
	surplusRows  = "surplus rows equal to another in all columns"
	distinctRows = "distinct among those"
)

func equalRows(what string) string {
	return "SELECT " + what + " FROM (SELECT count() AS n FROM events_by_person WHERE action = 'order completed' GROUP BY person_id, toDate(time), quantity, total) WHERE n > 1"
}

// customer is what the file says of one.
type customer struct {
	orders      int
	units       int
	spent       decimal.Decimal
	first, last string // days
}

// truth adds up the file by itself.
func truth(t *testing.T) map[string]customer {
	t.Helper()
	f, err := os.Open(cdnowFile)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // was only read
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	all := map[string]customer{}
	lines := bufio.NewScanner(z)
	require.True(t, lines.Scan(), "the header")
	for lines.Scan() {
		x := strings.Fields(lines.Text())
		if len(x) == 0 {
			continue
		}
		require.Len(t, x, 4)
		day := x[1][:4] + "-" + x[1][4:6] + "-" + x[1][6:]
		c, known := all[x[0]]
		if !known {
			c.first, c.last = day, day
		}
		c.orders++
		n, err := strconv.Atoi(x[2])
		require.NoError(t, err)
		c.units += n
		c.spent = c.spent.Add(decimal.RequireFromString(x[3]))
		c.first, c.last = min(c.first, day), max(c.last, day)
		all[x[0]] = c
	}
	require.NoError(t, lines.Err())
	require.Len(t, all, customers)
	return all
}

// TestCDNOW: every purchase of a real shop through the HTTP door, while each service is killed once on the way; all that
// is known of the file comes out of ClickHouse and of the profiles, to the cent, and nobody gets a mail for history.
func TestCDNOW(t *testing.T) {
	d := deploy(t, options{partitions: 12, delay: "1m"})
	file, err := filepath.Abs(cdnowFile)
	require.NoError(t, err)
	killed := d.replayWhileKilling(file)
	took := time.Now()
	d.awaitPurchases()
	t.Logf("all is in ClickHouse %s after the file was sent; killed on the way: %s", time.Since(took).Round(time.Second), strings.Join(killed, ", "))
	all := truth(t)
	t.Logf("CDNOW:\n%s", d.checkFacts(all))
	d.checkCustomers(all)

	d.replayAgain(file)
	d.checkFacts(all)
	t.Logf("every fact is the same after that")
	d.replayOldCarts()
	t.Logf("weft audit says:\n%s", d.run("audit", "--wait", "3m"))
	d.healthy()
}

// replayWhileKilling sends the file by 'weft replay' and kills each service once while it has work.
func (d *deployment) replayWhileKilling(file string) (killed []string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), arrivalLimit)
	defer cancel()
	var said bytes.Buffer
	cmd := d.command(ctx, "replay", file, "--mapping", cdnowMapping, "--to", d.door, "--key", keyBackend, "--state", filepath.Join(d.dir, "progress"))
	cmd.Stdout, cmd.Stderr = &said, &said
	begun := time.Now()
	require.NoError(d.t, cmd.Start())
	sent := make(chan struct{})
	var failed error
	go func() {
		failed = cmd.Wait()
		close(sent)
	}()
	const stored, folded = "SELECT count() FROM events", "SELECT sum(orders) FROM people"
	for _, victim := range []struct{ name, progress, input string }{
		{collector, stored, ""},
		{stitcher, stored, "events.collected"},
		{builder, folded, "events.identified"},
		{activator, stored, "events.identified"},
		{writer, stored, "events.identified"},
	} {
		after := len(killed) * purchases / 8
		eventually(d.t, arrivalLimit, "work for "+victim.name, func() error {
			if n := d.number("%s", victim.progress); n <= after {
				return fmt.Errorf("%d, wanted more than %d", n, after)
			}
			return nil
		})
		d.processes[victim.name].kill()
		killed = append(killed, victim.name+" "+d.toDo(victim.name, victim.input, sent))
		d.processes[victim.name].start()
	}
	<-sent
	require.NoError(d.t, failed, said.String())
	d.t.Logf("weft replay took %s and says:\n%s", time.Since(begun).Round(time.Second), said.String())
	return killed
}

// toDo says what a service that was killed had before it; the test fails if that was nothing.
func (d *deployment) toDo(name, input string, sent <-chan struct{}) string {
	d.t.Helper()
	behind := int64(0)
	if input != "" {
		behind = d.kafka.lag(d.prefix + name + "." + d.prefix + input)
	}
	select {
	case <-sent:
		require.Positive(d.t, behind, "%s had nothing left to do when it was killed", name)
		return fmt.Sprintf("(%d records behind)", behind)
	default:
		return fmt.Sprintf("(%d records behind, more to come)", behind)
	}
}

// awaitPurchases waits until ClickHouse has all events and the profiles of all of them.
func (d *deployment) awaitPurchases() {
	d.t.Helper()
	eventually(d.t, arrivalLimit, "all purchases are in ClickHouse", func() error {
		return errors.Join(
			want("events", purchases, d.number("SELECT count() FROM events")),
			want("orders of profiles", purchases, d.number("SELECT sum(orders) FROM people")),
		)
	})
}

// checkFacts returns each fact beside its expected value, and fails if one differs.
func (d *deployment) checkFacts(all map[string]customer) string {
	d.t.Helper()
	var rows [][]string
	wrong := 0
	told := d.histories(slices.Sorted(maps.Keys(all))).facts()
	for _, f := range cdnowFacts {
		row := []string{f.name, f.wanted, d.value("%s", f.events), told[f.name]}
		if f.profiles != "" {
			row[3] = d.value("%s", f.profiles)
		}
		if row[2] != f.wanted || row[3] != f.wanted {
			wrong++
			row[0] = "WRONG: " + row[0]
		}
		rows = append(rows, row)
	}
	messages := d.value("SELECT (SELECT count() FROM messages_requested) + (SELECT count() FROM messages WHERE outcome != 'suppressed')")
	require.Equal(d.t, "0", messages)
	rows = append(rows, []string{"messages sent or asked for", "0", messages, ""})
	rows = append(rows, []string{"mails received", "0", strconv.Itoa(len(d.mail.all())), ""})
	text := table([]string{"fact", "expected", "events", "profiles"}, rows)
	require.Zero(d.t, wrong, "facts that are wrong:\n%s", text)
	require.Empty(d.t, d.mail.all())
	require.Zero(d.t, d.number("SELECT count() FROM events WHERE NOT historical"))
	return text
}

// checkCustomers compares the profile of every customer with the file: all in ClickHouse, and a sample by the API.
func (d *deployment) checkCustomers(all map[string]customer) {
	d.t.Helper()
	rows := d.rows(`SELECT user_id, orders, revenue['USD'], toDate(first_seen), toDate(last_seen), units FROM
		(SELECT user_id, any(person_id) AS person_id FROM events_by_person GROUP BY user_id) AS e INNER JOIN people AS p ON p.person_id = e.person_id`)
	require.Len(d.t, rows, customers)
	for _, r := range rows {
		c, ok := all[r[0]]
		require.True(d.t, ok, "customer %s", r[0])
		require.Equal(d.t, []string{strconv.Itoa(c.orders), c.first, c.last, strconv.Itoa(c.units)}, []string{r[1], r[3], r[4], r[5]}, "customer %s", r[0])
		require.True(d.t, c.spent.Equal(decimal.RequireFromString(r[2])), "customer %s: spent %s, found %s", r[0], c.spent, r[2])
	}
	ids := slices.Sorted(maps.Keys(all))
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids[:sample] {
		p, err := d.profile("user_id", id)
		require.NoError(d.t, err)
		c := all[id]
		revenue, _ := p["revenue"].(map[string]any)
		require.Equal(d.t, []string{strconv.Itoa(c.orders), strconv.Itoa(c.units), c.spent.StringFixed(4), c.first + "T00:00:00.000Z", c.last + "T00:00:00.000Z"},
			[]string{fmt.Sprint(p["orders"]), fmt.Sprint(p["units"]), fmt.Sprint(revenue["USD"]), fmt.Sprint(p["firstSeen"]), fmt.Sprint(p["lastSeen"])}, "customer %s", id)
	}
	d.t.Logf("the profiles of all %d customers equal the file in orders, units, revenue, first and last day; %d of them asked of the API", customers, sample)
}

// replayAgain sends the beginning of the file a second time: duplicates all.
func (d *deployment) replayAgain(file string) {
	d.t.Helper()
	// Those of the kills: requests that the collector had taken and not yet answered were sent again.
	before := d.number("SELECT count() FROM events_rejected WHERE reason = 'duplicate'")
	part := filepath.Join(d.dir, "again.txt")
	copyLines(d.t, file, part, repeated+1)
	d.t.Logf("weft replay of the first %d again says:\n%s", repeated,
		d.run("replay", part, "--mapping", cdnowMapping, "--to", d.door, "--key", keyBackend, "--state", part+".progress"))
	eventually(d.t, arrivalLimit, "the repetitions are seen as duplicates", func() error {
		return want("duplicates", before+repeated, d.number("SELECT count() FROM events_rejected WHERE reason = 'duplicate'"))
	})
	require.Zero(d.t, d.number("SELECT count() FROM events_rejected WHERE reason != 'duplicate'"))
}

// copyLines copies the first lines of a packed file.
func copyLines(t *testing.T, from, to string, n int) {
	t.Helper()
	f, err := os.Open(from)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // was only read
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	var b bytes.Buffer
	for lines := bufio.NewScanner(z); n > 0 && lines.Scan(); n-- {
		b.WriteString(lines.Text() + "\n")
	}
	require.NoError(t, os.WriteFile(to, b.Bytes(), 0o600))
}

// replayOldCarts sends carts of 1997 that nobody bought, of people with a consent and an address: each gets its receipt
// "historical", and nobody a mail.
func (d *deployment) replayOldCarts() {
	d.t.Helper()
	var b bytes.Buffer
	for i := range oldCarts {
		at := time.Date(1997, 1, 1, 9, 0, 0, 0, time.UTC).Add(time.Duration(i) * 8 * time.Hour)
		who := fmt.Sprintf("old-%04d", i)
		fmt.Fprintf(&b, `{"type":"identify","userId":%q,"timestamp":%q,"traits":{"email":"%s@example.com","consent":{"email":{"marketing":true}}}}`+"\n", who, stamp(at), who)
		fmt.Fprintf(&b, `{"type":"track","event":"Product Added","userId":%q,"timestamp":%q,"properties":{"cart_id":"cart-%s","product_id":"cd","price":14.99,"quantity":1,"currency":"USD"}}`+"\n", who, stamp(at.Add(time.Minute)), who)
	}
	file := filepath.Join(d.dir, "carts.jsonl")
	require.NoError(d.t, os.WriteFile(file, b.Bytes(), 0o600))
	d.t.Logf("weft replay of %d carts of 1997 says:\n%s", oldCarts, d.run("replay", file, "--to", d.door, "--key", keyBackend, "--state", file+".progress"))
	eventually(d.t, arrivalLimit, "each old cart has its receipt", func() error {
		if n := d.number("SELECT uniqExact(receipt) FROM messages"); n < oldCarts {
			return fmt.Errorf("%d of %d", n, oldCarts)
		}
		return nil
	})
	ends := map[string]int{}
	for _, r := range d.receipts("cart-old-") {
		ends[cmp.Or(r.outcome, "?")+"/"+r.reason]++
	}
	d.t.Logf("%d carts of 1997: %s; mails: %d", oldCarts, sorted(ends), len(d.mail.all()))
	require.Equal(d.t, map[string]int{"suppressed/historical": oldCarts}, ends)
	require.Equal(d.t, oldCarts, d.number("SELECT count() FROM messages"))
	require.Zero(d.t, d.number("SELECT count() FROM messages_requested"))
	require.Empty(d.t, d.mail.all())
}
