package simulate

import (
	"maps"
	"time"
)

// shapes are the kinds of schedules. Probabilities are per request, in millionths.
func shapes() []*shape {
	some := load{people: 3, span: 7 * time.Second, views: 2, carts: 7, orders: 5, duels: 5, unions: 4, doubles: 2, poison: 1, old: 1}
	duel := load{people: 4, span: 4 * time.Second, views: 1, carts: 10, orders: 10, duels: 10, unions: 2}
	tills := duel
	tills.tills = 9
	merging := load{people: 4, span: 5 * time.Second, views: 3, carts: 6, orders: 3, duels: 5, unions: 10, doubles: 1}
	racing := load{people: 5, span: 300 * time.Millisecond, carts: 10, orders: 10, duels: 10, unions: 1}
	chained := load{people: 5, span: 4 * time.Second, views: 5, unions: 10, chains: true}
	crashes := map[class]chance{
		writes:   {crashBefore: 6_000, crashAfter: 8_000, crashLate: 3_000},
		produces: {crashBefore: 6_000, crashAfter: 8_000, crashLate: 3_000},
		commits:  {crashBefore: 2_000, crashAfter: 2_000},
		idles:    {crashBefore: 200},
		reads:    {crashBefore: 1_000},
		sends:    {crashBefore: 50_000, crashAfter: 50_000},
	}
	losses := map[class]chance{
		writes:   {cutBefore: 8_000, cutAfter: 15_000, late: 10_000, slow: 5_000},
		produces: {cutBefore: 8_000, cutAfter: 15_000, late: 10_000, slow: 5_000, timedOut: 10_000, tooFewCopies: 10_000},
		commits:  {cutBefore: 5_000, cutAfter: 5_000, late: 10_000, refuse: 5_000, slow: 5_000},
		idles:    {cutAfter: 1_000, slow: 500},
		reads:    {cutAfter: 5_000, slow: 2_000},
		member:   {cutAfter: 10_000, late: 10_000},
		sends:    {cutBefore: 50_000, cutAfter: 50_000, slow: 50_000},
	}
	freezes := map[class]chance{
		writes:   {freezeBefore: 4_000, freezeAfter: 8_000},
		produces: {freezeBefore: 4_000, freezeAfter: 8_000},
		commits:  {freezeBefore: 1_000, freezeAfter: 1_000},
		idles:    {freezeBefore: 100},
		reads:    {freezeAfter: 1_000},
		sends:    {freezeBefore: 30_000, freezeAfter: 30_000},
	}
	everything := map[class]chance{
		writes: {
			crashBefore: 2_000, crashAfter: 3_000, crashLate: 2_000, cutBefore: 3_000, cutAfter: 5_000, late: 5_000,
			freezeBefore: 2_000, freezeAfter: 3_000, slow: 3_000,
		},
		produces: {
			crashBefore: 2_000, crashAfter: 3_000, crashLate: 2_000, cutBefore: 3_000, cutAfter: 5_000, late: 5_000,
			freezeBefore: 2_000, freezeAfter: 3_000, slow: 3_000, timedOut: 4_000, tooFewCopies: 4_000,
		},
		commits: {crashAfter: 1_000, cutAfter: 3_000, late: 5_000, refuse: 3_000, freezeBefore: 1_000},
		idles:   {cutAfter: 500, crashBefore: 50, freezeBefore: 50, slow: 200},
		reads:   {cutAfter: 2_000, crashBefore: 300, freezeAfter: 300},
		member:  {cutAfter: 5_000, late: 5_000},
		sends:   {crashBefore: 20_000, crashAfter: 20_000, cutBefore: 20_000, cutAfter: 20_000, freezeAfter: 10_000},
	}
	inserting := map[class]chance{
		inserts: {
			crashBefore: 20_000, crashAfter: 30_000, crashLate: 20_000, cutBefore: 20_000, cutAfter: 40_000, late: 30_000,
			freezeBefore: 20_000, freezeAfter: 20_000, slow: 30_000,
		},
		commits: {
			crashBefore: 10_000, crashAfter: 10_000, crashLate: 10_000, cutAfter: 20_000, late: 20_000, refuse: 10_000,
			freezeBefore: 5_000, freezeAfter: 5_000,
		},
		produces: {crashAfter: 10_000, cutAfter: 20_000, late: 10_000},
		reads:    {cutAfter: 3_000},
	}
	knocking := maps.Clone(everything)
	knocking[asks] = chance{
		crashBefore: 10_000, crashAfter: 20_000, cutBefore: 30_000, cutAfter: 60_000, late: 50_000,
		freezeBefore: 10_000, freezeAfter: 10_000, slow: 20_000,
	}
	moving := map[class]chance{ // what the inlet does: fetch, produce, commit
		produces: {slow: 60_000, freezeBefore: 15_000, freezeAfter: 15_000, crashBefore: 10_000, crashAfter: 10_000, crashLate: 5_000, cutAfter: 10_000, late: 10_000},
		commits:  {slow: 10_000, crashBefore: 5_000, crashAfter: 5_000, freezeBefore: 5_000, late: 10_000},
		idles:    {freezeAfter: 400, crashBefore: 100},
		asks:     {slow: 10_000, cutAfter: 10_000},
	}
	spooled := duel
	spooled.doubles, spooled.poison = 2, 1
	spooling := map[class]chance{ // beside the outages
		disks:    {crashBefore: 20_000, crashAfter: 20_000, cutBefore: 10_000, slow: 10_000},
		produces: {slow: 20_000, timedOut: 10_000, cutAfter: 10_000, late: 10_000, crashBefore: 5_000, crashAfter: 5_000, crashLate: 5_000},
		writes:   {crashBefore: 5_000, crashAfter: 5_000, crashLate: 5_000, cutAfter: 10_000, late: 10_000, slow: 5_000},
		reads:    {cutAfter: 5_000},
		asks:     {crashBefore: 10_000, crashAfter: 20_000, cutAfter: 30_000, late: 20_000, slow: 10_000},
	}
	three := []string{stitch, build, activate}
	all := []string{stitch, build, activate, write}
	whole := []string{collect, stitch, build, activate, write}
	return []*shape{
		{name: "calm", services: three, owners: 1, load: some, trouble: 10 * time.Second},
		{name: "crash", services: three, owners: 1, load: some, trouble: 14 * time.Second, batch: 6, faults: crashes},
		{name: "lost", services: three, owners: 1, load: some, trouble: 14 * time.Second, batch: 6, faults: losses, idempotent: true},
		{name: "zombie", services: three, owners: 2, load: some, trouble: 16 * time.Second, batch: 6, faults: freezes},
		{name: "owners", services: three, owners: 2, load: some, trouble: 16 * time.Second, batch: 4, rebalances: 6, faults: map[class]chance{
			writes: {crashAfter: 1_000, slow: 10_000}, produces: {crashAfter: 1_000, slow: 10_000},
		}},
		{name: "duel", services: three, owners: 1, load: duel, trouble: 14 * time.Second, batch: 3, faults: map[class]chance{
			writes: {freezeAfter: 10_000, slow: 30_000, crashAfter: 5_000}, produces: {freezeBefore: 10_000, slow: 30_000, crashBefore: 5_000},
			commits: {late: 5_000},
		}},
		{name: "race", services: three, owners: 2, load: racing, trouble: 12 * time.Second, batch: 3, faults: map[class]chance{
			writes: {slow: 60_000, freezeAfter: 5_000, crashAfter: 2_000}, produces: {slow: 60_000, freezeBefore: 10_000, crashBefore: 2_000},
		}},
		{name: "chain", services: []string{stitch, build}, owners: 2, load: chained, trouble: 12 * time.Second, batch: 2, faults: map[class]chance{
			writes:   {late: 60_000, cutAfter: 30_000, crashAfter: 5_000, crashLate: 10_000, slow: 30_000, freezeBefore: 5_000},
			produces: {cutAfter: 10_000, slow: 20_000},
		}},
		{name: "merge", services: three, owners: 2, load: merging, trouble: 14 * time.Second, batch: 3, faults: everything},
		{name: "door", services: []string{collect, stitch, write}, owners: 2, load: some, trouble: 14 * time.Second, batch: 5, rebalances: 2, faults: knocking},
		{name: "inlet", services: []string{collect, stitch, activate}, owners: 2, load: tills, trouble: 14 * time.Second, batch: 3, rebalances: 2, faults: moving},
		{name: "spool", services: []string{collect, stitch, activate}, owners: 2, load: spooled, trouble: 14 * time.Second, batch: 3, rebalances: 2, outages: 3, faults: spooling},
		{name: "clocks", services: whole, owners: 2, load: some, trouble: 14 * time.Second, batch: 5, skew: 2 * time.Second, faults: map[class]chance{
			writes: {crashAfter: 2_000, freezeAfter: 2_000, slow: 10_000}, produces: {crashAfter: 2_000, freezeBefore: 2_000, slow: 10_000}, asks: {cutAfter: 20_000},
		}},
		{name: "all", services: whole, owners: 2, load: some, trouble: 16 * time.Second, batch: 5, rebalances: 2, config: 1, faults: knocking},
		{name: "rows", services: []string{stitch, write}, owners: 2, load: some, trouble: 14 * time.Second, batch: 5, rebalances: 3, faults: inserting},
		{name: "slow", services: all, owners: 1, load: some, trouble: 14 * time.Second, batch: 5, slow: true, faults: map[class]chance{
			writes: {crashAfter: 2_000, freezeAfter: 2_000, late: 5_000}, commits: {late: 10_000}, inserts: {late: 20_000},
		}},
		{name: "group", services: three, owners: 2, load: some, trouble: 16 * time.Second, batch: 5, recreate: 2},
		{name: "regress", services: three, owners: 1, load: some, trouble: 12 * time.Second, batch: 5, regress: allOf},
		{name: "cluster", services: three, owners: 1, load: some, trouble: 12 * time.Second, batch: 5, regress: oneNode},
	}
}
