//go:build integration

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"github.com/stretchr/testify/require"
)

// readers is how many histories are read at once: enough to keep the API busy, few beside the rest of the test.
const readers = 8

// purchase is one order of a history.
type purchase struct {
	Time          time.Time
	Amount, Units decimal.Decimal
	Status        string
}

// histories are the orders of customers, as the profile API tells them.
type histories map[string][]purchase

// histories asks the profile API for the orders of each user.
func (d *deployment) histories(users []string) histories {
	d.t.Helper()
	begun := time.Now()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: readers}}
	defer client.CloseIdleConnections()
	queue := make(chan string)
	var all sync.Mutex
	var failed []error
	found := histories{}
	var busy sync.WaitGroup
	for range readers {
		busy.Go(func() {
			for user := range queue {
				list, err := d.history(client, user)
				all.Lock()
				found[user] = list
				if err != nil {
					failed = append(failed, err)
				}
				all.Unlock()
			}
		})
	}
	for _, user := range users {
		queue <- user
	}
	close(queue)
	busy.Wait()
	if len(failed) > 0 {
		d.t.Fatalf("%d of %d histories can not be read, such as: %v", len(failed), len(users), errors.Join(failed[:1]...))
	}
	d.t.Logf("the profile API told the orders of %d customers in %s", len(users), time.Since(begun).Round(time.Millisecond))
	return found
}

// history asks for one; newest first, and all that the profile counts.
func (d *deployment) history(client *http.Client, user string) ([]purchase, error) {
	req, err := http.NewRequestWithContext(context.WithoutCancel(d.t.Context()), http.MethodGet, d.api+"/v1/profiles/user_id/"+url.PathEscape(user)+"/orders", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+keyRead)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // was only read
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, errors.Join(err, fmt.Errorf("orders of %s: %d: %s", user, resp.StatusCode, body))
	}
	var told struct {
		Orders []purchase
		Older  int64
	}
	if err := json.Unmarshal(body, &told); err != nil {
		return nil, fmt.Errorf("orders of %s: %w: %s", user, err, body)
	}
	for i, p := range told.Orders {
		if p.Status != "completed" || told.Older != 0 || i > 0 && p.Time.After(told.Orders[i-1].Time) {
			return nil, fmt.Errorf("orders of %s: completed ones are wanted, the newest first: %s", user, body)
		}
	}
	return told.Orders, nil
}

// facts counts what needs each purchase by itself, by the names in cdnowFacts.
func (h histories) facts() map[string]string {
	counts := map[string]int{}
	for _, list := range h {
		days, rows := map[string]int{}, map[string]int{}
		for _, p := range list {
			if p.Amount.IsZero() {
				counts[zeroValue]++
			}
			counts[inMonth+p.Time.UTC().Format("2006-01")]++
			day := p.Time.UTC().Format(time.DateOnly)
			days[day]++
			rows[day+" "+p.Units.String()+" "+p.Amount.String()]++
		}
		for _, n := range days {
			if n > 1 {
				counts[busyDays]++
			}
		}
		for _, n := range rows {
			if n > 1 {
				counts[distinctRows]++
				counts[surplusRows] += n - 1
			}
		}
	}
	told := map[string]string{}
	for name, n := range counts {
		told[name] = strconv.Itoa(n)
	}
	return told
}

// TestCDNOWFactsOfHistories: two purchases on a day are a busy day, and equal ones surplus, per customer.
func TestCDNOWFactsOfHistories(t *testing.T) {
	at := func(day int, amount string, units int64) purchase {
		return purchase{Time: time.Date(1997, 1, day, 0, 0, 0, 0, time.UTC), Amount: decimal.RequireFromString(amount), Units: decimal.NewFromInt(units)}
	}
	require.Equal(t, map[string]string{zeroValue: "1", inMonth + "1997-01": "8", busyDays: "2", distinctRows: "1", surplusRows: "2"}, histories{
		"a": {at(1, "9.99", 1), at(1, "9.99", 1), at(1, "9.9900", 1), at(1, "9.99", 2), at(2, "9.99", 1)},
		"b": {at(1, "9.99", 1), at(3, "0.0000", 1), at(3, "5", 1)},
	}.facts())
}
