package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"

	"github.com/weft-cdp/weft/pkg/embedded"
)

const (
	// startLimit is how long everything together may take until it answers, on a machine that is busy.
	startLimit = 2 * time.Minute
	// firstPort and lastPort lie below the range from which Linux takes the ports of outgoing connections, so that
	// who was killed finds its port free when it comes back.
	firstPort, lastPort = 12000, 19900
)

// Server is a server with a disk of its own.
type Server struct {
	*Process
	Disk *Disk
}

// Deployment is all of it.
type Deployment struct {
	Dir     string // absolute; data in data/, logs in logs/
	Binary  string // of weft
	Self    string // this binary, which can be a ClickHouse
	Cluster bool   // Redis Cluster instead of one Redis
	Static  bool   // each process has its kafka.instance_id
	Mail    string // address of the mail server
	Journey []byte // the journey file

	Kafka      []*Process
	Redis      []Server
	ClickHouse Server
	Services   []*Service

	KafkaLinks, RedisLinks []*Link
	ClickHouseLink         *Link

	KafkaDirect      []string // addresses that no proxy is in front of
	ClickHouseDirect string
	Doors            []string // of the collectors

	redisDirect []string
	toxi        *toxiproxy.ApiServer
	links       []*Link
	disks       []*Disk
	ports       map[string]int
	mu          sync.Mutex
}

// Prepare makes directories, disks, links and the processes, none of which runs yet.
func (d *Deployment) Prepare(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(d.Dir, "data"), 0o700); err != nil {
		return fmt.Errorf("prepare the deployment: %w", err)
	}
	if err := d.readPorts(); err != nil {
		return err
	}
	if err := errors.Join(d.kafka(ctx), d.redis(), d.clickHouse()); err != nil {
		return err
	}
	if err := d.services(); err != nil {
		return err
	}
	return d.writePorts()
}

// clickHouse prepares ClickHouse, which is this very binary with libchdb.
func (d *Deployment) clickHouse() error {
	library, err := embedded.ClickHouseLibrary("")
	if err != nil {
		return err
	}
	const name = "clickhouse"
	native, plain := d.address(name), d.address(name+"-http")
	d.ClickHouseDirect = native
	if d.ClickHouseLink, err = d.link(name, native); err != nil {
		return err
	}
	disk, err := d.disk(name, clickHouseDisk)
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(native)
	_, plainPort, _ := net.SplitHostPort(plain)
	d.ClickHouse = Server{Disk: disk, Process: &Process{
		Name: name, env: os.Environ(), log: filepath.Join(d.Dir, "logs", name+".log"),
		argv: []string{d.Self, "clickhouse-server", "--library", library, "--data", disk.Dir, "--tcp", port, "--http", plainPort},
		ready: func(ctx context.Context) error {
			return errors.Join(answers(ctx, "http://"+plain+"/ping"), dials(ctx, native))
		},
	}}
	return nil
}

// answers fails until a URL is answered with 200.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only the status counts
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s was answered %s", url, resp.Status)
	}
	return nil
}

// Up starts the servers and waits until they answer.
func (d *Deployment) Up(ctx context.Context) error {
	all := d.Servers()
	for _, p := range all {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for _, p := range all {
		if err := p.Await(ctx, startLimit); err != nil {
			return err
		}
	}
	return d.meet(ctx)
}

// Servers are the processes that Weft stands on.
func (d *Deployment) Servers() []*Process {
	all := append([]*Process(nil), d.Kafka...)
	for _, r := range d.Redis {
		all = append(all, r.Process)
	}
	return append(all, d.ClickHouse.Process)
}

// Heal ends all harm: links are whole, disks have room, and everything runs and goes on.
func (d *Deployment) Heal(ctx context.Context) error {
	var errs []error
	for _, l := range d.links {
		errs = append(errs, l.Heal(ctx))
	}
	for _, k := range d.disks {
		errs = append(errs, k.Free())
	}
	for _, p := range d.Servers() {
		p.Resume()
		errs = append(errs, p.Start())
	}
	for _, s := range d.Services {
		s.Resume()
		errs = append(errs, s.Start())
		if s.Clock.Impossible() == nil {
			errs = append(errs, s.SetClock(0))
		}
	}
	return errors.Join(errs...)
}

// Close stops everything: the services in the order of the pipeline, then the servers. The disks are given back
// unless keep is set.
func (d *Deployment) Close(keep bool) error {
	var errs []error
	for _, s := range d.Services {
		s.Resume()
		errs = append(errs, s.Term())
	}
	for _, p := range d.Servers() {
		p.Resume()
		p.Kill() // their data is given up, or has to bear it
	}
	for _, l := range d.links {
		l.close()
	}
	if !keep {
		for _, k := range d.disks {
			errs = append(errs, k.unmount())
		}
	}
	return errors.Join(errs...)
}

// Discard removes what a run has left in dir, disks of a killed one included.
func Discard(dir string) error {
	data := filepath.Join(dir, "data")
	entries, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discard the last run: %w", err)
	}
	for _, e := range entries {
		root := filepath.Join(data, e.Name())
		mounted, err := isMounted(root)
		if err != nil {
			return err
		}
		if mounted {
			if err := (&Disk{root: root, Small: true}).unmount(); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(os.RemoveAll(data), os.RemoveAll(filepath.Join(dir, "logs"))); err != nil {
		return fmt.Errorf("discard the last run: %w", err)
	}
	return nil
}

// address is a listener's, the same over restarts of the deployment.
func (d *Deployment) address(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	port, known := d.ports[name]
	for !known {
		port = firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // any will do
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		_ = l.Close() // nobody has connected
		known = true
		for _, taken := range d.ports {
			known = known && taken != port
		}
	}
	d.ports[name] = port
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func (d *Deployment) portsFile() string { return filepath.Join(d.Dir, "data", "ports.json") }

func (d *Deployment) readPorts() error {
	d.ports = map[string]int{}
	text, err := os.ReadFile(d.portsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &d.ports)
	}
	if err != nil {
		return fmt.Errorf("read the ports: %w", err)
	}
	return nil
}

func (d *Deployment) writePorts() error {
	text, err := json.Marshal(d.ports)
	if err == nil {
		err = os.WriteFile(d.portsFile(), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the ports: %w", err)
	}
	return nil
}
