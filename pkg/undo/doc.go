// Package undo is what it means to take a link between two people back: into which parts a person falls, which stored event
// is whose then, and what the parts' profiles, carts and journeys will be.
//
// It owns: the parts of a split (Ties), whose each stored event is (Parts), the preview, and the ledger of commands in Redis
// with their states and plans. It guarantees that a preview comes of the same events, assigned and folded in the same way, as
// the split itself tells again. It reads ClickHouse, which is a few seconds behind: a command carries the members that it
// was made for, and is refused if they have changed. It must not know how a command is carried out (identity-stitcher).
package undo
