package inlet

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/weft-cdp/weft/pkg/event"
)

// changePlaces are the members of Debezium's source that say where in its database's log a change stands, of one
// connector or the other. Without any of them nothing tells a repeated record from another change.
var changePlaces = [...]string{"lsn", "pos", "gtid", "vgtid", "scn", "commit_scn", "change_lsn", "commit_lsn", "ord"}

// changeVolatile are members that may differ when a connector that was restarted writes the same change once more.
var changeVolatile = [...]string{"version", "connector", "snapshot", "sequence", "ts_us", "ts_ns"}

const (
	// changePrefix stands before the message id of a change, so that people see what it is.
	changePrefix = "change:"
	// changeBytes is how much of a change's hash is its id: 128 bits, so that no two changes share one.
	changeBytes = 16
)

// changeID is the message id of a change: of its place in the database's log, the table, the operation and the row. The
// row counts because changes may share a place (PostgreSQL's COPY, the rows of a snapshot). The same change has the
// same id whenever it is written to the topic; every other one, also of the same row, has another. Empty: the source
// says no place.
func changeID(in *read) string {
	var source event.Object
	source.Read(in.source)
	placed := false
	for _, name := range changePlaces {
		placed = placed || !source.Find(name).Absent()
	}
	if !placed {
		return ""
	}
	h := sha256.New()
	part := func(b []byte) {
		_, _ = h.Write(b) // never fails
		_, _ = h.Write([]byte{0})
	}
	for i := range source.Len() {
		if name := source.Name(i); !volatile(name) {
			part([]byte(name))
			part(source.Value(i).Raw)
		}
	}
	part(in.op)
	part(in.before)
	part(in.after)
	return changePrefix + hex.EncodeToString(h.Sum(nil)[:changeBytes])
}

func volatile(name string) bool {
	for _, v := range changeVolatile {
		if v == name {
			return true
		}
	}
	return false
}
