// Package warehouse is ClickHouse as Weft uses it: the schema and its migrations, tables whose columns are
// declared once, inserts that happen once, and the questions of the audit. It is the only importer of
// clickhouse-go and of ch-go, its lower layer, which inserts go over.
//
// It owns: connections, the SQL text of every insert and audit query, the settings an insert needs to be
// deduplicated by its token (architecture section 8), the class of an error.
//
// It guarantees:
//   - Insert returns nil only when ClickHouse has the rows. Inserts with the same table and token store their
//     rows once, if they hold the same rows and the second comes within the table's window of tokens. One
//     insert is one block. After its deadline an insert is not sent.
//   - Migrate brings any older schema to this binary's, may run in several processes at once, and refuses a
//     schema that is newer or was edited.
//
// It must not know Kafka, nor how an event becomes a row: journey-writer does that.
package warehouse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/weft-cdp/weft/pkg/config"
)

const (
	// dialTimeout bounds one attempt to connect.
	dialTimeout = 5 * time.Second
	// queryTimeout is how long the server may work on a question that no caller bounds otherwise.
	queryTimeout = 5 * time.Minute
	// maxConns is how many connections a client holds for statements and questions.
	maxConns = 16
	// clientName is what the server's logs call us.
	clientName = "weft"
)

// databaseName is what may be filled into SQL without quotes, and into string literals.
var databaseName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// Client is a connection pool to one ClickHouse and one database in it. It is safe for concurrent use.
type Client struct {
	conn     driver.Conn
	inserts  *inserts
	database string
	user     string
	password string
}

// Open prepares a client; it does not connect yet.
func Open(cfg config.ClickHouse) (*Client, error) {
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("open clickhouse: no addresses")
	}
	if !databaseName.MatchString(cfg.Database) {
		return nil, fmt.Errorf("open clickhouse: database %q is not a plain name (letters, digits, underscores)", cfg.Database)
	}
	c := &Client{database: cfg.Database, user: cfg.Username}
	if cfg.PasswordFile != "" {
		b, err := os.ReadFile(cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read clickhouse password: %w", err)
		}
		c.password = strings.TrimRight(string(b), "\r\n")
	}
	tlsConfig, err := cfg.TLS.Load()
	if err != nil {
		return nil, fmt.Errorf("open clickhouse: %w", err)
	}
	c.conn, err = clickhouse.Open(&clickhouse.Options{
		Addr:         cfg.Addresses,
		Auth:         clickhouse.Auth{Username: c.user, Password: c.password}, // no database: Migrate makes it
		TLS:          tlsConfig,
		DialTimeout:  dialTimeout,
		ReadTimeout:  queryTimeout,
		MaxOpenConns: maxConns,
		MaxIdleConns: maxConns,
		Compression:  &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		ClientInfo: clickhouse.ClientInfo{Products: []struct{ Name, Version string }{
			{Name: clientName},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("open clickhouse: %w", err)
	}
	c.inserts = newInserts(ch.Options{
		User: c.user, Password: c.password, TLS: tlsConfig, DialTimeout: dialTimeout, HandshakeTimeout: dialTimeout,
		ReadTimeout: packetWait, Compression: ch.CompressionLZ4, ClientName: clientName,
	}, cfg.Addresses)
	return c, nil
}

// Database is the name of the database that the tables are in.
func (c *Client) Database() string { return c.database }

// Ping asks ClickHouse for a sign of life.
func (c *Client) Ping(ctx context.Context) error {
	if err := c.conn.Ping(ctx); err != nil {
		return classify(fmt.Errorf("ping clickhouse: %w", err))
	}
	return nil
}

// Close ends all connections. It is idempotent.
func (c *Client) Close() error {
	c.inserts.close()
	return c.conn.Close()
}

// Exec runs one statement that returns nothing. ${database} is filled in.
func (c *Client) Exec(ctx context.Context, sql string, args ...any) error {
	if err := c.conn.Exec(ctx, c.fill(sql), args...); err != nil {
		return classify(fmt.Errorf("run %q: %w", firstLine(sql), err))
	}
	return nil
}

// Select reads the rows of a query into dest, a pointer to a slice of structs with `ch` tags.
// ${database} is filled in.
func (c *Client) Select(ctx context.Context, dest any, sql string, args ...any) error {
	if err := c.conn.Select(ctx, dest, c.fill(sql), args...); err != nil {
		return classify(fmt.Errorf("query %q: %w", firstLine(sql), err))
	}
	return nil
}

// personDictionaries say whose a row is today.
var personDictionaries = []string{"person", "part_of_event", "part_of_message"}

// ReloadPersons makes these dictionaries, and with them every view, see the redirects and parts inserted so far.
// Only rows inserted since the last load are read.
func (c *Client) ReloadPersons(ctx context.Context) error {
	for _, name := range personDictionaries {
		if err := c.Exec(ctx, "SYSTEM RELOAD DICTIONARY ${database}."+name); err != nil {
			return err
		}
	}
	return nil
}

// fill puts the database's name into a statement.
func (c *Client) fill(sql string) string { return strings.ReplaceAll(sql, "${database}", c.database) }

func firstLine(sql string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(sql), "\n")
	const most = 80
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "..."
	}
	return line
}
