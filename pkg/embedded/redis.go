package embedded

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
)

const (
	redisServer = "redis-server"
	// probeLimit bounds one look at a server that is starting.
	probeLimit = 2 * time.Second
)

// startRedis runs redis-server with every write on disk before it is acknowledged, as the services require.
func (p *Parts) startRedis(ctx context.Context, binary, dir string, ports *ports) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start Redis: %w", err)
	}
	return p.run(ctx, func() (command, error) {
		port, err := ports.pick("redis")
		if err != nil {
			return command{}, err
		}
		p.RedisAddr = loopback(port)
		return command{
			name: redisServer,
			argv: []string{
				binary, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--daemonize", "no",
				"--appendonly", "yes", "--appendfsync", "always", "--save", "",
			},
			log:   filepath.Join(dir, "redis.log"),
			ready: func(ctx context.Context) error { return pingRedis(ctx, p.RedisAddr) },
		}, nil
	})
}

// pingRedis fails until Redis answers and has read its data.
func pingRedis(ctx context.Context, address string) error {
	answer, err := exchange(ctx, address, "*1\r\n$4\r\nPING\r\n")
	if err == nil && !strings.HasPrefix(answer, "+PONG") {
		err = fmt.Errorf("PING was answered %q", strings.TrimSpace(answer))
	}
	return err
}

// exchange sends a request over a new connection and reads one line.
func exchange(ctx context.Context, address, request string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // nothing is pending
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

func (p *Parts) startMiniredis() error {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return fmt.Errorf("start miniredis: %w", err)
	}
	p.RedisAddr = m.Addr()
	p.onClose(func(context.Context) error { m.Close(); return nil })
	return nil
}
