package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	// clusterNodes is the fewest masters that Redis Cluster agrees with.
	clusterNodes = 3
	// clusterSlots is how many slots a Redis Cluster has.
	clusterSlots = 16384
)

// RedisCluster is a Redis Cluster of three masters without replicas, every write on disk before it is
// acknowledged, for tests: its nodes can be killed and started again, and slots moved. It ends with the process.
type RedisCluster struct {
	dir   string
	nodes [clusterNodes]*clusterNode
}

type clusterNode struct {
	addr string
	argv []string
	cmd  *exec.Cmd
}

// StartRedisCluster starts one in dir and waits until it serves all slots.
func StartRedisCluster(ctx context.Context, dir string) (*RedisCluster, error) {
	binary, err := exec.LookPath(redisServer)
	if err != nil {
		return nil, fmt.Errorf("start a Redis Cluster: %w (Debian: apt-get install redis-server)", err)
	}
	c := &RedisCluster{dir: dir}
	// A node's bus is another port, which by default is 10000 above: one that connections are given.
	free, err := freePorts(2 * clusterNodes)
	if err != nil {
		return nil, fmt.Errorf("start a Redis Cluster: %w", err)
	}
	for i := range c.nodes {
		port, bus := strconv.Itoa(free[i]), strconv.Itoa(free[clusterNodes+i])
		data := filepath.Join(dir, port)
		if err := os.MkdirAll(data, 0o700); err != nil {
			return nil, fmt.Errorf("start a Redis Cluster: %w", err)
		}
		c.nodes[i] = &clusterNode{addr: loopback(free[i]), argv: []string{
			binary, "--bind", "127.0.0.1", "--port", port, "--dir", data, "--daemonize", "no", "--logfile", "redis.log",
			"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--cluster-enabled", "yes",
			"--cluster-port", bus, "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
		}}
	}
	if err := c.meet(ctx, free[clusterNodes:]); err != nil {
		return nil, errors.Join(fmt.Errorf("start a Redis Cluster: %w", err), c.Close())
	}
	return c, nil
}

// Addresses are those of the nodes.
func (c *RedisCluster) Addresses() []string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.addr)
	}
	return all
}

// Start starts a node, on the data it has, and waits until it answers.
func (c *RedisCluster) Start(ctx context.Context, node int) error {
	n := c.nodes[node]
	n.cmd = exec.Command(n.argv[0], n.argv[1:]...) //nolint:gosec // a server of our own
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start node %d: %w", node, err)
	}
	return await(ctx, startLimit, func(ctx context.Context) error { return pingRedis(ctx, n.addr) })
}

// Kill ends a node without warning.
func (c *RedisCluster) Kill(node int) error {
	n := c.nodes[node]
	if n.cmd == nil {
		return nil
	}
	err := n.cmd.Process.Kill()
	_ = n.cmd.Wait() // it was killed
	n.cmd = nil
	return ignoreDone(err)
}

// Close ends all nodes.
func (c *RedisCluster) Close() error {
	var errs []error
	for i := range c.nodes {
		errs = append(errs, c.Kill(i))
	}
	return errors.Join(errs...)
}

// meet starts the nodes, shares the slots out, and waits until all agree.
func (c *RedisCluster) meet(ctx context.Context, buses []int) error {
	for i := range c.nodes {
		if err := c.Start(ctx, i); err != nil {
			return err
		}
		from, to := i*clusterSlots/clusterNodes, (i+1)*clusterSlots/clusterNodes-1
		if _, err := c.Say(ctx, i, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to)); err != nil {
			return err
		}
		if i > 0 {
			_, port, _ := net.SplitHostPort(c.nodes[i].addr)
			if _, err := c.Say(ctx, 0, "CLUSTER", "MEET", "127.0.0.1", port, strconv.Itoa(buses[i])); err != nil {
				return err
			}
		}
	}
	return c.Settled(ctx)
}

// Settled waits until every node says that the cluster is whole.
func (c *RedisCluster) Settled(ctx context.Context) error {
	return await(ctx, startLimit, func(ctx context.Context) error {
		for i := range c.nodes {
			state, err := c.Say(ctx, i, "CLUSTER", "INFO")
			if err != nil {
				return err
			}
			if !strings.Contains(state, "cluster_state:ok") || !strings.Contains(state, "cluster_slots_ok:"+strconv.Itoa(clusterSlots)) ||
				!strings.Contains(state, "cluster_known_nodes:"+strconv.Itoa(clusterNodes)) {
				return fmt.Errorf("node %d does not agree: %s", i, state)
			}
		}
		return nil
	})
}

// Say gives a node one command of plain words and returns its simple, bulk or number answer.
func (c *RedisCluster) Say(ctx context.Context, node int, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.nodes[node].addr)
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
	switch line[0] {
	case '+', ':':
		return line[1:], nil
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", fmt.Errorf("%s was answered %q", words[0], line)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return "", err
		}
		return string(body), nil
	}
	return "", fmt.Errorf("%s was answered %q", strings.Join(words, " "), line)
}

// freePorts are n different ports that were free just now.
func freePorts(n int) ([]int, error) {
	var found []int
	for len(found) < n {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(found, port) {
			found = append(found, port)
		}
	}
	return found, nil
}
