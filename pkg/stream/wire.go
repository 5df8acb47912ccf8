package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/segmentio/kafka-go/protocol"
)

// maxResponseBytes bounds one answer: far above what any request here asks for (64 MiB, see fetch.go), and
// low enough that a broken size field cannot take all memory.
const maxResponseBytes = 256 << 20

var errMalformed = errors.New("answer is cut short or malformed")

// exchange is one request, already encoded, that kafka-go's transport carries to a broker. It speaks one
// version of one API. One that was cancelled may still be on the wire: then neither it nor its memory is used
// again.
type exchange struct {
	key     protocol.ApiKey
	version int16
	frame   []byte // the whole request, see writer.head and seal
	// route picks the broker; one with a negative id means any.
	route func(protocol.Cluster) (protocol.Broker, error)
	// read takes the answer off the wire, where that is not to go into memory of its own.
	read    func(*body)
	metrics *apiMetrics

	supported int16 // highest version that kafka-go and this broker have in common
	body      body
}

// answer is the body of a response, behind the correlation id. It belongs to whoever gets it.
type answer struct {
	key  protocol.ApiKey
	body []byte
}

var (
	_ protocol.BrokerMessage = (*exchange)(nil)
	_ protocol.RawExchanger  = (*exchange)(nil)
	_ protocol.Message       = (*answer)(nil)
	_ protocol.RawExchanger  = (*pull)(nil)
)

func (e *exchange) ApiKey() protocol.ApiKey { return e.key } //nolint:revive // kafka-go's spelling
func (a *answer) ApiKey() protocol.ApiKey   { return a.key } //nolint:revive // kafka-go's spelling

// Broker says where the request goes; see protocol.BrokerMessage.
func (e *exchange) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	if e.route == nil {
		return protocol.Broker{ID: -1}, nil
	}
	return e.route(cluster)
}

// Required makes the transport use RawExchange; it notes the version that the broker can do.
func (e *exchange) Required(versions map[protocol.ApiKey]int16) bool {
	e.supported = versions[e.key]
	return true
}

// RawExchange writes the request and reads the answer. An error closes the connection.
func (e *exchange) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if e.supported < e.version {
		return nil, fmt.Errorf("broker knows %s up to version %d, needed is %d (Kafka 2.3 or later): %w",
			e.key, e.supported, e.version, errUnsupported)
	}
	if _, err := rw.Write(e.frame); err != nil {
		return nil, err
	}
	e.metrics.sent.Add(float64(len(e.frame)))
	var head [8]byte
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head[:4]))
	if size < 4 || size > maxResponseBytes {
		return nil, fmt.Errorf("%s answer of %d bytes: %w", e.key, size, errMalformed)
	}
	e.metrics.received.Add(float64(size + 4))
	if id := binary.BigEndian.Uint32(head[4:]); id != correlation {
		return nil, fmt.Errorf("%s answer to request %d: %w", e.key, id, errMalformed)
	}
	if e.read != nil {
		e.body.r, e.body.left, e.body.err = rw, size-4, nil
		e.read(&e.body)
		if e.body.left > 0 {
			e.body.fail()
		}
		return e, e.body.err
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(rw, body); err != nil {
		return nil, err
	}
	return &answer{key: e.key, body: body}, nil
}

// correlation is the id of every request: one at a time is on a connection.
const correlation = 1

// head begins a request: its size, which seal fills in, and its header.
func (w *writer) head(key protocol.ApiKey, version int16, clientID string) {
	w.int32(0)
	w.int16(int16(key))
	w.int16(version)
	w.int32(correlation)
	w.str(clientID)
}

// seal fills in the size of a whole request.
func seal(frame []byte) { binary.BigEndian.PutUint32(frame, u32(len(frame)-4)) }

// writer encodes Kafka's primitive types (big endian, lengths in front) of the non-flexible versions.
type writer struct{ b []byte }

func (w *writer) int8(v int8)   { w.b = append(w.b, byte(v)) }                          //nolint:gosec // bits
func (w *writer) int16(v int16) { w.b = binary.BigEndian.AppendUint16(w.b, uint16(v)) } //nolint:gosec // bits
func (w *writer) int32(v int32) { w.b = binary.BigEndian.AppendUint32(w.b, uint32(v)) } //nolint:gosec // bits
func (w *writer) int64(v int64) { w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) } //nolint:gosec // bits
func (w *writer) array(n int)   { w.int32(i32(n)) }

// putArray fills in the length of an array, written before it was known.
func putArray(b []byte, n int) { binary.BigEndian.PutUint32(b, u32(n)) }

func (w *writer) str(s string) {
	w.int16(int16(len(s))) //nolint:gosec // names and metadata, below 32 KiB
	w.b = append(w.b, s...)
}

// nullStr writes an empty string as null.
func (w *writer) nullStr(s string) {
	if s == "" {
		w.int16(-1)
		return
	}
	w.str(s)
}

// reader decodes the same. After an error every read gives zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		r.err, r.b = errMalformed, nil
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) int8() int8 {
	if b := r.take(1); b != nil {
		return int8(b[0]) //nolint:gosec // bits
	}
	return 0
}

func (r *reader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b)) //nolint:gosec // bits
	}
	return 0
}

func (r *reader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b)) //nolint:gosec // bits
	}
	return 0
}

func (r *reader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b)) //nolint:gosec // bits
	}
	return 0
}

// str reads a string; null is empty.
func (r *reader) str() string {
	n := r.int16()
	if n < 0 {
		return ""
	}
	return string(r.take(int(n)))
}

// array reads the length of an array whose elements have at least size bytes; null is 0.
func (r *reader) array(size int) int {
	n := int(r.int32())
	if n > len(r.b)/size {
		r.err, r.b = errMalformed, nil
		return 0
	}
	return max(n, 0)
}

func itoa(n int) string { return strconv.Itoa(n) }

// i32 is for counts and partition numbers, which Kafka itself keeps in 32 bits.
func i32(n int) int32  { return int32(n) }  //nolint:gosec // see above
func u32(n int) uint32 { return uint32(n) } //nolint:gosec // see above
