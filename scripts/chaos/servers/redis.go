package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// clusterNodes is how many masters a Redis Cluster has here, without replicas: a killed one's slots are away
	// until it is back.
	clusterNodes = 3
	// slots is how many a Redis Cluster has.
	slots = 16384
	// probeLimit bounds one look at a server.
	probeLimit = 2 * time.Second
)

// redis prepares one Redis, or the nodes of a cluster, each with every write on disk before it is acknowledged.
func (d *Deployment) redis() error {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("start Redis: %w (Debian: apt-get install redis-server)", err)
	}
	n := 1
	if d.Cluster {
		n = clusterNodes
	}
	for i := range n {
		name := fmt.Sprintf("redis-%d", i+1)
		address := d.address(name)
		link, err := d.link(name, address)
		if err != nil {
			return err
		}
		disk, err := d.disk(name, redisDisk)
		if err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(address)
		argv := []string{
			binary, "--bind", "127.0.0.1", "--port", port, "--dir", disk.Dir, "--daemonize", "no",
			"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--auto-aof-rewrite-min-size", "16mb",
		}
		if d.Cluster {
			_, proxied, _ := net.SplitHostPort(link.Address)
			_, bus, _ := net.SplitHostPort(d.address(name + "-bus"))
			argv = append(argv, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000",
				"--cluster-require-full-coverage", "no", "--cluster-port", bus, "--cluster-announce-ip", "127.0.0.1",
				"--cluster-announce-port", proxied, "--cluster-announce-bus-port", bus)
		}
		p := &Process{
			Name: name, argv: argv, env: os.Environ(), log: filepath.Join(d.Dir, "logs", name+".log"),
			ready: func(ctx context.Context) error { return pings(ctx, address) },
		}
		d.Redis = append(d.Redis, Server{Process: p, Disk: disk})
		d.RedisLinks = append(d.RedisLinks, link)
		d.redisDirect = append(d.redisDirect, address)
	}
	return nil
}

// meet makes a cluster of the nodes, once.
func (d *Deployment) meet(ctx context.Context) error {
	if !d.Cluster {
		return nil
	}
	for i, address := range d.redisDirect {
		state, err := say(ctx, address, "CLUSTER", "INFO")
		if err != nil {
			return fmt.Errorf("make the cluster: %w", err)
		}
		if strings.Contains(state, "cluster_slots_assigned:16384") {
			return nil
		}
		from, to := i*slots/clusterNodes, (i+1)*slots/clusterNodes-1
		if _, err := say(ctx, address, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to)); err != nil {
			return fmt.Errorf("make the cluster: %w", err)
		}
		if i == 0 {
			continue
		}
		_, port, _ := net.SplitHostPort(address)
		_, bus, _ := net.SplitHostPort(d.address(fmt.Sprintf("redis-%d-bus", i+1)))
		if _, err := say(ctx, d.redisDirect[0], "CLUSTER", "MEET", "127.0.0.1", port, bus); err != nil {
			return fmt.Errorf("make the cluster: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		whole := 0
		for _, address := range d.redisDirect {
			state, err := say(ctx, address, "CLUSTER", "INFO")
			if err == nil && strings.Contains(state, "cluster_state:ok") && strings.Contains(state, "cluster_known_nodes:"+strconv.Itoa(clusterNodes)) {
				whole++
			}
		}
		if whole == clusterNodes {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("make the cluster: the nodes do not agree")
		case <-time.After(poll):
		}
	}
}

// pings fails until Redis answers and has read its data.
func pings(ctx context.Context, address string) error {
	answer, err := say(ctx, address, "PING")
	if err == nil && answer != "PONG" {
		err = fmt.Errorf("PING was answered %q", answer)
	}
	return err
}

// say sends one command over a connection of its own and returns a simple or a bulk answer.
func say(ctx context.Context, address string, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // nothing is pending
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", strings.Join(words, " ")); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(line, "+"):
		return line[1:], nil
	case strings.HasPrefix(line, "$"):
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", fmt.Errorf("%s was answered %q", words[0], line)
		}
		var b strings.Builder
		for b.Len() < n {
			next, err := r.ReadString('\n')
			if err != nil {
				return "", err
			}
			b.WriteString(next)
		}
		return b.String(), nil
	}
	return "", fmt.Errorf("%s was answered %q", words[0], line)
}

// dials fails until address accepts connections.
func dials(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
