package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weft-cdp/weft/scripts/chaos/ledger"
	"github.com/weft-cdp/weft/scripts/chaos/oracle"
	"github.com/weft-cdp/weft/scripts/chaos/servers"
	"github.com/weft-cdp/weft/scripts/chaos/strikes"
)

var (
	// errViolated is what ends a run that broke a promise.
	errViolated = errors.New("promises were broken")
	// errUnlooked is what ends a run that has not shown all that it is for.
	errUnlooked = errors.New("not everything was looked at")
)

// inOneLine sums strikes up by stage.
func inOneLine(s ledger.Strikes) string {
	var b strings.Builder
	for _, stage := range slices.Sorted(maps.Keys(s)) {
		n := 0
		for _, k := range s[stage] {
			n += k
		}
		fmt.Fprintf(&b, "%s %d, ", stage, n)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// report prints the verdict, adds the run to the sums and closes the ledger.
func (c *chaos) report(v *oracle.Verdict) error {
	v.Compared["P1"] = v.Events
	if n := c.load.Bare.Load(); n > 0 {
		v.Violate("P1", "%d answers of 503 or 429 came without Retry-After", n)
	}
	if err := c.stands(v); err != nil {
		return err
	}
	var notes []ledger.Note
	var struck ledger.Strikes
	c.ledger.Read(func(b *ledger.Book) { notes, struck = slices.Clone(b.Notes), b.Strikes })
	for _, n := range notes {
		fmt.Printf("NOTE %s: %s\n", n.Stage, n.What)
	}
	fmt.Printf("\nseed %d: %d events acknowledged, %d people, %d carts (%d with late news), %d mails, %d purchases known in time\n",
		c.plan.Seed, v.Events, v.People, v.Carts, v.Late, v.Mails, v.Later)
	fmt.Printf("the door answered %v; %d requests had no answer; receipts: %v\n", c.load.Answers(), c.load.Broken.Load(), v.Ends)
	fmt.Println("strikes of this run:")
	printStrikes(struck)
	v.Print(os.Stdout)

	sums, err := c.addUp(v, struck)
	if err != nil {
		return err
	}
	if err := c.ledger.Append(ledger.Entry{Kind: ledger.Closed}); err != nil {
		return err
	}
	fmt.Printf("strikes of all %d runs in %s:\n", sums.Runs, c.dir)
	printStrikes(sums.Strikes)
	missing := v.Unlooked()
	if c.away == 0 {
		missing = append(missing, unstruck(struck)...)
	}
	for _, what := range missing {
		fmt.Printf("NOT LOOKED AT: %s\n", what)
	}
	var wrong error
	switch {
	case !v.OK():
		wrong = errViolated
	case len(missing) > 0:
		wrong = errUnlooked
	default:
		fmt.Println("chaos: every promise was kept")
		return nil
	}
	kept, err := c.keep()
	return errors.Join(fmt.Errorf("%w: ledger and logs are in %s; again with --seed %d", wrong, kept, c.plan.Seed), err)
}

// stands looks at how the services lived: none may have ended by itself, now or before, nor cried out in its log.
func (c *chaos) stands(v *oracle.Verdict) error {
	if err := strikes.Raise(c.d, c.ledger); err != nil {
		return err
	}
	c.ledger.Read(func(b *ledger.Book) {
		for _, n := range b.Falls {
			v.Violate(oracle.Stands, "%s: %s", n.Stage, n.What)
		}
	})
	for _, s := range c.d.Services {
		v.Compared[oracle.Stands]++
		cries, err := s.Cries()
		if err != nil {
			return err
		}
		for _, line := range cries {
			v.Violate(oracle.Stands, "the log of %s says: %s", s.Name, line)
		}
	}
	return nil
}

// unstruck are the stages, kinds of servers and links that no strike came to.
func unstruck(s ledger.Strikes) []string {
	return slices.DeleteFunc(append(servers.Stages(), strikes.Servers()...), func(name string) bool {
		n, _ := oneLine(s[name])
		return n > 0
	})
}

// keep puts the ledger and the logs of a run that went wrong where the next run does not drop them.
func (c *chaos) keep() (string, error) {
	dir := filepath.Join(c.dir, "failed", c.plan.Run)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dir, fmt.Errorf("keep the logs: %w", err)
	}
	for _, name := range []string{"logs", ledger.FileName} {
		if err := os.Rename(filepath.Join(c.dir, name), filepath.Join(dir, name)); err != nil {
			return dir, fmt.Errorf("keep the logs: %w", err)
		}
	}
	return dir, nil
}

// addUp adds the run to the sums, unless this was done before and only the ledger's last line is missing.
func (c *chaos) addUp(v *oracle.Verdict, struck ledger.Strikes) (ledger.Sums, error) {
	sums, err := ledger.ReadSums(c.dir)
	if err != nil || sums.Last == c.plan.Run {
		return sums, err
	}
	sums.Last = c.plan.Run
	sums.Runs++
	if c.plan.Cluster {
		sums.Clusters++
	}
	sums.Seeds = append(sums.Seeds, c.plan.Seed)
	sums.Events, sums.Carts, sums.Mails, sums.People = sums.Events+v.Events, sums.Carts+v.Carts, sums.Mails+v.Mails, sums.People+v.People
	sums.Strikes.AddAll(struck)
	for p, n := range v.Compared {
		sums.Compared[p] += n
	}
	for p, n := range v.Violations() {
		sums.Violations[p] += n
	}
	return sums, sums.Write(c.dir)
}

// table prints the sums over runs as docs/reliability.md shows them.
func table(dir string) error {
	sums, err := ledger.ReadSums(dir)
	if err != nil {
		return err
	}
	fmt.Printf("%d runs (%d on Redis Cluster): %d events acknowledged, %d people, %d carts, %d mails.\n\n", sums.Runs, sums.Clusters, sums.Events, sums.People, sums.Carts, sums.Mails)
	fmt.Print("| struck | strikes | of these |\n|---|---|---|\n")
	for _, name := range parts(sums.Strikes) {
		n, text := oneLine(sums.Strikes[name])
		fmt.Printf("| %s | %d | %s |\n", name, n, text)
	}
	fmt.Print("\n| promise | compared | violations |\n|---|---|---|\n")
	for _, p := range append(oracle.Promises(), oracle.Stands) {
		fmt.Printf("| %s | %d | %d |\n", p, sums.Compared[p], sums.Violations[p])
	}
	return nil
}

// parts are those that were struck: the stages in their order, then the others.
func parts(s ledger.Strikes) []string {
	order := servers.Stages()
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	return order
}

// oneLine is the number of strikes and the kinds.
func oneLine(kinds map[string]int) (int, string) {
	n := 0
	list := make([]string, 0, len(kinds))
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		n += kinds[kind]
		list = append(list, fmt.Sprintf("%s %d", kind, kinds[kind]))
	}
	return n, strings.Join(list, "; ")
}

// printStrikes writes a line for each stage and server.
func printStrikes(s ledger.Strikes) {
	for _, name := range parts(s) {
		n, text := oneLine(s[name])
		fmt.Printf("  %-20s %5d: %s\n", name, n, text)
	}
}
