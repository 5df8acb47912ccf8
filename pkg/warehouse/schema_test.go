package warehouse

import (
	"encoding/xml"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/weft-cdp/weft/schemas/clickhouse"
)

var update = flag.Bool("update", false, "rewrite the snapshots in testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Two processes may apply the schema at once and there is no lock, so every statement must be harmless when
// run again.
func TestEveryStatementMayRunTwice(t *testing.T) {
	twice := regexp.MustCompile(`^(CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE (VIEW|DICTIONARY)|ALTER TABLE \S+ (ADD (COLUMN|INDEX) IF NOT EXISTS|DROP (COLUMN|INDEX) IF EXISTS|MODIFY)|DROP (VIEW|DICTIONARY|TABLE) IF EXISTS) `)
	all, err := loadMigrations(clickhouse.Files)
	require.NoError(t, err)
	for _, m := range all {
		for _, sql := range splitStatements(m.text) {
			require.Regexp(t, twice, sql, m.name)
			require.Equal(t, m.repeated, strings.HasPrefix(sql, "CREATE OR REPLACE") || strings.HasPrefix(sql, "DROP VIEW"),
				"%s: only what holds no data is applied again", m.name)
			require.Contains(t, sql, "${database}.", m.name)
		}
	}
}

// What architecture section 8 wants of every table that journey-writer fills.
func TestTablesAreMadeForTokens(t *testing.T) {
	all, err := loadMigrations(clickhouse.Files)
	require.NoError(t, err)
	tables := 0
	for _, m := range all {
		for _, sql := range splitStatements(m.text) {
			if !strings.HasPrefix(sql, "CREATE TABLE") {
				continue
			}
			tables++
			require.Regexp(t, `non_replicated_deduplication_window = (10000|100000)\b`, sql)
			for _, column := range []string{"topic ", "partition ", "offset ", "inserted_at "} {
				require.Contains(t, sql, "\n    "+column)
			}
			if strings.Contains(sql, "PARTITION BY") {
				require.Contains(t, sql, "PARTITION BY toYYYYMM(received_at)\nORDER BY (brand, ")
			}
		}
	}
	require.Equal(t, len(offsetTables), tables)
}

// grantedViews is the views of the analyst's users file.
func grantedViews(t *testing.T) []string {
	t.Helper()
	var file struct {
		Grants []string `xml:"users>analyst>grants>query"`
	}
	require.NoError(t, xml.Unmarshal(clickhouse.AnalystUser, &file))
	var views []string
	for _, g := range file.Grants {
		if view, ok := strings.CutPrefix(g, "GRANT SELECT ON weft."); ok {
			views = append(views, view)
			continue
		}
		require.Equal(t, "GRANT dictGet ON weft.person", g)
	}
	return views
}

func TestAnalystIsGrantedEveryViewAndNothingElse(t *testing.T) {
	made := regexp.MustCompile(`^CREATE OR REPLACE VIEW \$\{database\}\.(\w+)\nDEFINER = CURRENT_USER SQL SECURITY DEFINER AS\n`)
	all, err := loadMigrations(clickhouse.Files)
	require.NoError(t, err)
	var views []string
	for _, m := range all {
		for _, sql := range splitStatements(m.text) {
			if strings.HasPrefix(sql, "CREATE OR REPLACE VIEW") {
				name := made.FindStringSubmatch(sql)
				require.NotNil(t, name, "%s: a view must run with the rights of who made it", m.name)
				views = append(views, name[1])
			}
		}
	}
	require.ElementsMatch(t, views, grantedViews(t))
}

func TestMigrationNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"0001_a.sql": true, "0002_b_c.view.sql": true, "1_a.sql": false, "0001-a.sql": false, "0001_A.sql": false, "0001_a.up.sql": false,
	} {
		require.Equal(t, ok, migrationName.MatchString(name), name)
	}
}

func TestSplitStatements(t *testing.T) {
	for text, want := range map[string][]string{
		"":                              nil,
		" ; ;\n":                        nil,
		"a;b":                           {"a", "b"},
		"-- x; y\na -- z;\n;/* b; */c;": {"a", "c"},
		"a 'x;''y' ; b \"p;\" `q;`":     {"a 'x;''y'", "b \"p;\" `q;`"},
		`a 'x\';y';b`:                   {`a 'x\';y'`, "b"},
		"a 'open; -- text":              {"a 'open; -- text"},
		"a /* open; ":                   {"a"},
		"SELECT 1--2\n+1":               {"SELECT 1+1"},
	} {
		require.Equal(t, want, splitStatements(text), "%q", text)
	}
}

// Whatever stands in quotes comes back as it was.
func TestSplitKeepsQuotedText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "texts")
		var want []string
		for _, p := range parts {
			want = append(want, "SELECT '"+sqlEscaper.Replace(p)+"'")
		}
		if got := splitStatements(strings.Join(want, ";\n-- it's ; here\n")); !slices.Equal(got, want) {
			t.Fatalf("%q became %q", want, got)
		}
	})
}

// The SQL that goes out, as it goes out.
func TestSQLSnapshots(t *testing.T) {
	var b strings.Builder
	for _, sql := range []string{
		Events().InsertSQL(), RejectedEvents().InsertSQL(), Identities().InsertSQL(), Redirects().InsertSQL(), Moves().InsertSQL(),
		Profiles().InsertSQL(), AudienceChanges().InsertSQL(), Messages().InsertSQL(), Receipts().InsertSQL(),
		EventParts().InsertSQL(), MessageParts().InsertSQL(), Suspensions().InsertSQL(), Commands().InsertSQL(),
		balanceSQL, rejectionsSQL, doublesSQL(), highestSQL(offsetTables), fmt.Sprintf(storedSQL, TableEvents), ledgerSQL,
		fmt.Sprintf(currentSQL, uuid.Max), fmt.Sprintf(linksSQL, losersOf(uuid.Max)), fmt.Sprintf(causesSQL, losersOf(uuid.Max)),
		fmt.Sprintf(profileEventsSQL, eventsOf(membersOf(uuid.Max))), suspendedSQL,
	} {
		fmt.Fprintf(&b, "%s;\n\n", sql)
	}
	file := filepath.Join("testdata", "sql.golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o750))
		require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String(), "go test -update rewrites it")
}

// Each INSERT names each column once, and each row has a value for it.
func TestColumnsAreDeclaredOnce(t *testing.T) {
	columns := func(sql string) []string {
		_, list, _ := strings.Cut(sql, "(")
		return strings.Split(strings.TrimSuffix(list, ")"), ", ")
	}
	for _, sql := range []string{Events().InsertSQL(), Profiles().InsertSQL(), Receipts().InsertSQL()} {
		names := columns(sql)
		slices.Sort(names)
		require.Equal(t, names, slices.Compact(slices.Clone(names)))
	}
	b := Redirects().NewBlock()
	b.Skip(map[uint64]bool{2: true})
	for offset := range uint64(4) {
		b.Add(&Redirect{Origin: Origin{Offset: offset}})
	}
	require.Equal(t, 3, b.Rows())
	b.Reset()
	b.Add(&Redirect{Origin: Origin{Offset: 2}})
	require.Equal(t, 1, b.Rows(), "Reset forgets what to skip")
	require.Equal(t, TableRedirects, b.Table())
}
