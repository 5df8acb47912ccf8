//go:build integration

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// clickHouse runs a statement as a user over HTTP; every value of the answer is text.
func clickHouse(ctx context.Context, user, database, sql string) ([][]string, error) {
	params := url.Values{"user": {user}, "default_format": {"JSONCompactStrings"}}
	if database != "" {
		params.Set("database", database)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+shared.clickHouseHTTP+"/?"+params.Encode(), strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask ClickHouse: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // was only read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask ClickHouse: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask ClickHouse: %d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil // a statement without an answer
	}
	var answer struct{ Data [][]string }
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("read ClickHouse's answer: %w: %s", err, text)
	}
	return answer.Data, nil
}

// queryLimit bounds one query on a busy machine.
const queryLimit = 3 * time.Minute

// rows runs a query on the deployment's database.
func (d *deployment) rows(sql string, args ...any) [][]string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), queryLimit)
	defer cancel()
	out, err := clickHouse(ctx, "default", d.database, fmt.Sprintf(sql, args...))
	require.NoError(d.t, err, sql)
	return out
}

// value is the only value of a query's answer.
func (d *deployment) value(sql string, args ...any) string {
	d.t.Helper()
	out := d.rows(sql, args...)
	require.Len(d.t, out, 1, sql)
	require.Len(d.t, out[0], 1, sql)
	return out[0][0]
}

// number is value as a whole number.
func (d *deployment) number(sql string, args ...any) int {
	d.t.Helper()
	n, err := strconv.Atoi(d.value(sql, args...))
	require.NoError(d.t, err, sql)
	return n
}

// quote is an SQL string.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// table is the rows of an answer, aligned, for people.
func table(header []string, rows [][]string) string {
	width := make([]int, len(header))
	all := append([][]string{header}, rows...)
	for _, r := range all {
		for i, v := range r {
			width[i] = max(width[i], len([]rune(v)))
		}
	}
	var b strings.Builder
	for n, r := range all {
		for i, v := range r {
			b.WriteString(" " + v + strings.Repeat(" ", width[i]-len([]rune(v))) + " ")
			if i < len(r)-1 {
				b.WriteString("|")
			}
		}
		b.WriteString("\n")
		if n == 0 {
			for i, w := range width {
				b.WriteString(strings.Repeat("-", w+2))
				if i < len(width)-1 {
					b.WriteString("|")
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
