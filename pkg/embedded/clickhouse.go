package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/weft-cdp/weft/pkg/config"
)

// ClickHouseVersion is the version of the npm package @chdb/lib-linux-x64-gnu that scripts/fetch-clickhouse fetches.
const ClickHouseVersion = "26.7.3-stable.1"

// cacheDir is where the scripts put what they fetch.
func cacheDir(parts ...string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache: %w", err)
	}
	return filepath.Join(append([]string{base, "weft"}, parts...)...), nil
}

// ClickHouseLibrary is the path of libchdb.so: the one given, else that of the environment variable WEFT_LIBCHDB,
// else where scripts/fetch-clickhouse puts it. It is an error, which says how to get it, if there is no such file.
func ClickHouseLibrary(given string) (string, error) {
	path := given
	if path == "" {
		path = os.Getenv(config.EnvLibCHDB)
	}
	if path == "" {
		dir, err := cacheDir("clickhouse", ClickHouseVersion)
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, "libchdb.so")
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("start ClickHouse: %s is not there: run 'make deps' (or scripts/fetch-clickhouse), or name the library in %s", path, config.EnvLibCHDB)
	} else if err != nil {
		return "", fmt.Errorf("start ClickHouse: %w", err)
	}
	return path, nil
}

func (p *Parts) startClickHouse(ctx context.Context, dir string, ports *ports, opt Options) error {
	library, err := ClickHouseLibrary(opt.ClickHouseLibrary)
	if err != nil {
		return err
	}
	if err := writeUsers(filepath.Join(dir, usersDir), opt.ClickHouseUsers); err != nil {
		return fmt.Errorf("start ClickHouse: %w", err)
	}
	return p.run(ctx, func() (command, error) {
		tcp, errTCP := ports.pick("clickhouse")
		http, errHTTP := ports.pick("clickhouse-http")
		if err := errors.Join(errTCP, errHTTP); err != nil {
			return command{}, err
		}
		p.ClickHouseAddr, p.ClickHouseHTTPAddr = loopback(tcp), loopback(http)
		argv := append(p.self[:len(p.self):len(p.self)], clickHouseCommand,
			"--library", library, "--data", dir, "--tcp", strconv.Itoa(tcp), "--http", strconv.Itoa(http))
		return command{
			name: clickHouseCommand,
			argv: argv,
			log:  filepath.Join(dir, "clickhouse.log"),
			ready: func(ctx context.Context) error {
				return errors.Join(pingClickHouse(ctx, p.ClickHouseHTTPAddr), dials(ctx, p.ClickHouseAddr))
			},
		}, nil
	})
}

// writeUsers makes dir hold these files and no other.
func writeUsers(dir string, files map[string][]byte) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// pingClickHouse fails until the HTTP interface answers.
func pingClickHouse(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/ping", nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err == nil && (resp.StatusCode != http.StatusOK || strings.TrimSpace(string(text)) != "Ok.") {
		err = fmt.Errorf("ping was answered %s: %s", resp.Status, text)
	}
	return err
}

// dials fails until address accepts connections.
func dials(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
