package simulate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// message is one request: one Kafka request, or the Redis commands that were written together.
type message struct {
	bytes   []byte
	label   string // what it is, the same in every run: no correlation ids, no random values
	answers int    // frames that answer it
	class   class
	kafka   kmsg.Request // of a Kafka request
}

// class is what a request does, as far as faults care.
type class string

const (
	reads    class = "read"    // changes nothing
	idles    class = "idle"    // reads that are made all the time while nothing happens
	writes   class = "write"   // Redis scripts and sets
	produces class = "produce" // Kafka
	commits  class = "commit"  // offsets
	member   class = "member"  // joins, heartbeats, leaves
	inserts  class = "insert"  // ClickHouse
	sends    class = "send"    // a message to its channel
	asks     class = "ask"     // a source's request to the HTTP door
	disks    class = "disk"    // a step of the spool's disk
)

// framing takes a byte stream apart.
type framing interface {
	// request is the whole request at the head of b; nil: it is not complete.
	request(b []byte) *message
	// answer reads one frame.
	answer(r *reader) ([]byte, error)
	// refuse is an answer that says the request was not carried out; nil where there is none.
	refuse(m *message) []byte
	// deny makes of an answer one that says code, though the request was carried out; nil where there is none.
	deny(m *message, answer []byte, code int16) []byte
}

// kafkaFraming is Kafka's: a length before each frame.
type kafkaFraming struct{}

func (kafkaFraming) request(b []byte) *message {
	if len(b) < 4 {
		return nil
	}
	n := int(binary.BigEndian.Uint32(b)) + 4
	if len(b) < n {
		return nil
	}
	m := &message{bytes: bytes.Clone(b[:n]), answers: 1, class: reads}
	body := m.bytes[4:]
	key, version := int16(binary.BigEndian.Uint16(body)), int16(binary.BigEndian.Uint16(body[2:])) //nolint:gosec // as on the wire
	body = body[8:]
	client := int(int16(binary.BigEndian.Uint16(body))) //nolint:gosec // as on the wire
	body = body[2+max(client, 0):]
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	if req.IsFlexible() {
		body = body[1:] // no tags are ever sent
	}
	m.kafka = req
	m.label = kmsg.NameForKey(key)
	if req.ReadFrom(body) == nil {
		m.describe()
	}
	return m
}

// describe says which topic, partition and group a request is about.
func (m *message) describe() {
	switch r := m.kafka.(type) {
	case *kmsg.ProduceRequest:
		m.class = produces
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				m.label += " " + t.Topic + "/" + strconv.Itoa(int(p.Partition))
			}
		}
	case *kmsg.FetchRequest:
		m.class = idles
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				m.label += " " + t.Topic + "/" + strconv.Itoa(int(p.Partition))
			}
		}
	case *kmsg.OffsetCommitRequest:
		m.class = commits
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				m.label += " " + r.Group + "/" + strconv.Itoa(int(p.Partition))
			}
		}
	case *kmsg.OffsetFetchRequest:
		m.label += " " + r.Group
	case *kmsg.JoinGroupRequest:
		m.class = member
		m.label += " " + r.Group
	case *kmsg.SyncGroupRequest:
		m.class = member
		m.label += " " + r.Group
	case *kmsg.LeaveGroupRequest:
		m.class = member
		m.label += " " + r.Group
	case *kmsg.HeartbeatRequest:
		m.class = idles
		m.label += " " + r.Group
	}
}

func (kafkaFraming) answer(r *reader) ([]byte, error) {
	r.got = r.got[:0]
	head, err := r.full(4)
	if err != nil {
		return nil, err
	}
	if _, err := r.full(int(binary.BigEndian.Uint32(head))); err != nil {
		return nil, err
	}
	return bytes.Clone(r.got), nil
}

// refuse answers a commit with a code that says it was not carried out.
func (kafkaFraming) refuse(m *message) []byte {
	r, ok := m.kafka.(*kmsg.OffsetCommitRequest)
	if !ok {
		return nil
	}
	res, _ := r.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, t := range r.Topics {
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, kerr.RequestTimedOut.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		res.Topics = append(res.Topics, rt)
	}
	b := append(make([]byte, 4), m.bytes[8:12]...) // the correlation id
	if res.IsFlexible() {
		b = append(b, 0)
	}
	b = res.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4)) //nolint:gosec // small
	return b
}

// deny puts a code into the answer to a produce request.
func (kafkaFraming) deny(m *message, answer []byte, code int16) []byte {
	r, ok := m.kafka.(*kmsg.ProduceRequest)
	if !ok {
		return nil
	}
	res, _ := r.ResponseKind().(*kmsg.ProduceResponse)
	head := 8 // the length and the correlation id
	if res.IsFlexible() {
		head++
	}
	if res.ReadFrom(answer[head:]) != nil {
		return nil
	}
	for i := range res.Topics {
		for j := range res.Topics[i].Partitions {
			p := &res.Topics[i].Partitions[j]
			p.ErrorCode, p.BaseOffset = code, -1
		}
	}
	b := res.AppendTo(bytes.Clone(answer[:head]))
	binary.BigEndian.PutUint32(b, uint32(len(b)-4)) //nolint:gosec // small
	return b
}

// redisFraming is RESP: what was written together is one request with an answer per command.
type redisFraming struct{}

// labelled is how many commands of a pipeline its label names: a look at the graph's counts has a command for each.
const labelled = 10

func (redisFraming) request(b []byte) *message {
	m := &message{class: idles}
	var names []string
	rest := b
	for len(rest) > 0 {
		args, n := command(rest)
		if n == 0 {
			break
		}
		rest = rest[n:]
		m.answers++
		names = append(names, m.note(args))
	}
	if m.answers == 0 {
		return nil
	}
	m.bytes = bytes.Clone(b[:len(b)-len(rest)])
	names = compactRuns(names)
	if n := len(names); n > labelled {
		names = append(names[:labelled], fmt.Sprintf("and %d more", n-labelled))
	}
	m.label = strings.Join(names, " ")
	return m
}

// note takes the class of a command and returns what to call it.
func (m *message) note(args []string) string {
	name := strings.ToUpper(args[0])
	switch name {
	case "EVALSHA", "EVAL":
		m.class = writes
		if len(args) > 3 {
			return name + " " + tagOf(args[3])
		}
	case "SET", "HSETNX", "SETNX", "DEL":
		m.class = writes
	case "GET", "SMISMEMBER", "ZRANGEBYSCORE", "MGET":
		if m.class == idles {
			m.class = reads
		}
	}
	if len(args) > 1 {
		return name + " " + tagOf(args[1])
	}
	return name
}

// tagOf is a key's hash tag, or the key; identities stand in the graph's tags and are the same in each run.
func tagOf(key string) string {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if j := strings.IndexByte(key[i:], '}'); j > 0 {
			return key[i : i+j+1]
		}
	}
	return key
}

// compactRuns leaves one of equal neighbours.
func compactRuns(names []string) []string {
	out := names[:0]
	for _, n := range names {
		if len(out) == 0 || out[len(out)-1] != n {
			out = append(out, n)
		}
	}
	return out
}

// command reads one RESP array of bulk strings; n is 0 if it is not complete.
func command(b []byte) (args []string, n int) {
	number := func(at int, mark byte) (v, next int, ok bool) {
		end := bytes.IndexByte(b[min(at, len(b)):], '\n')
		if end < 0 || b[at] != mark {
			return 0, 0, false
		}
		v, err := strconv.Atoi(string(b[at+1 : at+end-1]))
		return v, at + end + 1, err == nil
	}
	count, at, ok := number(0, '*')
	if !ok {
		return nil, 0
	}
	for range count {
		size, next, ok := number(at, '$')
		if !ok || len(b) < next+size+2 {
			return nil, 0
		}
		args = append(args, string(b[next:next+size]))
		at = next + size + 2
	}
	return args, at
}

func (redisFraming) answer(r *reader) ([]byte, error) {
	r.got = r.got[:0]
	if err := reply(r); err != nil {
		return nil, err
	}
	return bytes.Clone(r.got), nil
}

// reply reads one RESP 2 value.
func reply(r *reader) error {
	line, err := r.line()
	if err != nil {
		return err
	}
	kind := line[0]
	if kind != '$' && kind != '*' {
		return nil
	}
	n, err := strconv.Atoi(strings.TrimRight(string(line[1:]), "\r\n"))
	if err != nil || n < 0 {
		return err
	}
	if kind == '$' {
		_, err := r.full(n + 2)
		return err
	}
	for range n {
		if err := reply(r); err != nil {
			return err
		}
	}
	return nil
}

func (redisFraming) refuse(*message) []byte { return nil }

func (redisFraming) deny(*message, []byte, int16) []byte { return nil }
