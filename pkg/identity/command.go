package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// CommandKind says what an operator wants.
type CommandKind string

// The kinds of commands.
const (
	CommandSplit   CommandKind = "split"   // Members become Parts, which must not be one person again
	CommandLink    CommandKind = "link"    // two identifiers are one person, whatever caps say
	CommandBlock   CommandKind = "block"   // an identifier counts for nobody; it is split off first, by a split command
	CommandUnblock CommandKind = "unblock" // it counts again, from now on
	CommandRelease CommandKind = "release" // the parts of an earlier split may be one person again
	CommandReject  CommandKind = "reject"  // two identifiers must not be one person
	CommandErase   CommandKind = "erase"   // a person is forgotten, and suppressed
	// CommandUnsuppress lets identifiers that were erased come in again; they begin anew.
	CommandUnsuppress CommandKind = "unsuppress"
)

// CommandKinds lists every kind there is.
func CommandKinds() []CommandKind {
	return []CommandKind{CommandSplit, CommandLink, CommandBlock, CommandUnblock, CommandRelease, CommandReject, CommandErase, CommandUnsuppress}
}

// Command is what an operator has said of identities: the value of a record of identities.commands. Carrying it out twice
// is once.
type Command struct {
	ID     string      `json:"id"` // unique; two commands of one id are one
	Kind   CommandKind `json:"kind"`
	Actor  string      `json:"actor"`  // who says so
	Reason string      `json:"reason"` // and why, in words
	At     time.Time   `json:"at"`
	// Person is the profile id as it was shown: split, erase.
	Person string `json:"person,omitempty"`
	// Members are all nodes of Person's component as the command was made for it: split, erase. If they have changed it is
	// refused. Of unsuppress they are the nodes that may come in again.
	Members []string `json:"members,omitempty"`
	// Parts are what Members become, two at least, each in order; each member stands in one: split.
	Parts [][]string `json:"parts,omitempty"`
	// Identifiers are two for link and reject, one for block and unblock.
	Identifiers []Evidence `json:"identifiers,omitempty"`
	// Split is the id of the split command that release takes back.
	Split string `json:"split,omitempty"`
}

// CommandsKey is the key of all records of identities.commands, so that they have one order.
const CommandsKey = "commands"

// Limits of a command: what Kafka takes in one record, and what a person reads.
const (
	maxCommandIDBytes = 128
	maxCommandText    = 1024
	maxCommandNodes   = 10_000 // ten times the default of identity.governor.members_per_person
)

// Encode writes the record's value.
func (c *Command) Encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.ID, err)
	}
	return b, nil
}

// ParseCommand reads the value of a record of identities.commands, and says by field what is wrong with it.
func ParseCommand(b []byte) (Command, error) {
	var c Command
	if err := json.Unmarshal(b, &c); err != nil {
		return Command{}, fmt.Errorf("parse command: %w", err)
	}
	if err := c.Check(); err != nil {
		return Command{}, fmt.Errorf("parse command %q: %w", c.ID, err)
	}
	return c, nil
}

// Check says by field what is wrong with a command.
func (c *Command) Check() error {
	switch {
	case c.ID == "" || len(c.ID) > maxCommandIDBytes:
		return fmt.Errorf("id: has %d bytes, want 1 to %d", len(c.ID), maxCommandIDBytes)
	case !slices.Contains(CommandKinds(), c.Kind):
		return fmt.Errorf("kind: %q is not one of %v", c.Kind, CommandKinds())
	case c.Actor == "" || len(c.Actor) > maxCommandText:
		return fmt.Errorf("actor: has %d bytes, want 1 to %d", len(c.Actor), maxCommandText)
	case c.Reason == "" || len(c.Reason) > maxCommandText:
		return fmt.Errorf("reason: has %d bytes, want 1 to %d", len(c.Reason), maxCommandText)
	case c.At.IsZero():
		return errors.New("at: is missing")
	case c.Kind == CommandRelease && c.Split == "":
		return errors.New("split: is missing: the id of the command whose parts may be one person again")
	}
	want := map[CommandKind]int{CommandLink: 2, CommandReject: 2, CommandBlock: 1, CommandUnblock: 1}[c.Kind]
	if len(c.Identifiers) != want {
		return fmt.Errorf("identifiers: are %d, want %d", len(c.Identifiers), want)
	}
	for i, e := range c.Identifiers {
		if _, err := ParseNode(e.Node); err != nil {
			return fmt.Errorf("identifiers[%d].node: %w", i, err)
		}
	}
	if c.Kind != CommandSplit && c.Kind != CommandErase && c.Kind != CommandUnsuppress {
		return nil
	}
	return c.checkMembers()
}

func (c *Command) checkMembers() error {
	if _, err := ParseNode(c.Person); err != nil && c.Kind != CommandUnsuppress {
		return fmt.Errorf("person: %w", err)
	}
	if len(c.Members) == 0 || len(c.Members) > maxCommandNodes {
		return fmt.Errorf("members: are %d, want 1 to %d", len(c.Members), maxCommandNodes)
	}
	in := make(map[string]bool, len(c.Members))
	for i, m := range c.Members {
		if _, err := ParseNode(m); err != nil {
			return fmt.Errorf("members[%d]: %w", i, err)
		}
		if in[m] {
			return fmt.Errorf("members[%d]: %s stands there twice", i, m)
		}
		in[m] = true
	}
	if c.Kind != CommandSplit {
		return nil
	}
	if len(c.Parts) < 2 {
		return fmt.Errorf("parts: are %d, want 2 at least", len(c.Parts))
	}
	for i, part := range c.Parts {
		if len(part) == 0 {
			return fmt.Errorf("parts[%d]: is empty", i)
		}
		for j, m := range part {
			if !in[m] {
				return fmt.Errorf("parts[%d][%d]: %s is no member, or stands in two parts", i, j, m)
			}
			delete(in, m)
		}
	}
	if len(in) > 0 {
		return fmt.Errorf("parts: %d members stand in none", len(in))
	}
	return nil
}

// Parted says where a member of a person went that was split; or that it was erased, and where it leads if it comes again. It
// is the value of records of kind split and erase: on events.identified, key the member, once for each member, whether or not it ever was a
// profile id; and of kind split on identities.linked, where it takes the place of the member's link.
type Parted struct {
	Command    string    `json:"command"`
	Node       string    `json:"node"`
	Into       string    `json:"into,omitempty"`   // the part's node: the profile id of its person then
	Person     string    `json:"person"`           // whose it was
	Generation uint64    `json:"generation"`       // above that of all who were in the person; merges' versions begin with it
	Day        uint16    `json:"day,omitempty"`    // on which the member was first linked, as in Merge.Days
	Degree     uint8     `json:"degree,omitempty"` // how many links named it, without the first
	Time       time.Time `json:"time"`             // of the command
	Actor      string    `json:"actor"`
	Reason     string    `json:"reason"`
}

// Part is what a split has made: the value of records of kind part on identities.linked. A release writes it anew, with the
// generation that Resolver.Release answers.
type Part struct {
	Command    string      `json:"command"`
	Node       string      `json:"node"`
	Generation uint64      `json:"generation"`
	Cuts       [][2]string `json:"cuts"` // pairs of nodes that must not be one person
	Time       time.Time   `json:"time"` // of the command: what was due before it is over
}

// Key is the key of the part's record on identities.linked: not its node, under which its link will stand if it is merged.
func (p *Part) Key() string { return p.Node + "+part" }

// NodeState is what is said of one identifier: the value of records of kind state on identities.linked. What a command says
// of it and what events say of a device have keys of their own, and neither takes the other's place.
type NodeState struct {
	Node    string     `json:"node"`
	Blocked bool       `json:"blocked,omitempty"` // it counts for nobody
	Shared  *time.Time `json:"shared,omitempty"`  // several people use the device, as was seen then
	// LoggedOut is when the device's owner logged out; absent: nobody has, or somebody has logged in again.
	LoggedOut *time.Time  `json:"loggedOut,omitempty"`
	Round     int64       `json:"round,omitempty"` // of a device: by it the stitchers tell which of their publications counts
	Cuts      [][2]string `json:"cuts,omitempty"`  // pairs with this node that must not be one person
	// Generation is that of the node's component when cuts were taken away, as Resolver.Release answers it.
	Generation uint64 `json:"generation,omitempty"`
	Command    string `json:"command,omitempty"` // by which command; empty: by an event
}

// Key is the key of the state's record: the node with a minus sign behind it, so that it does not take the place of the node's
// link, and behind that "device" for what events say of a device.
func (s *NodeState) Key() string {
	if s.Command == "" {
		return s.Node + deviceStateKey
	}
	return s.Node + "-"
}

const deviceStateKey = "-device"

// Encode writes the record's value.
func (s *NodeState) Encode() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the state of %s: %w", s.Node, err)
	}
	return b, nil
}

// ParseNodeState reads the value of a record of kind state. Fields it does not know are left alone.
func ParseNodeState(b []byte) (NodeState, error) {
	var s NodeState
	if err := json.Unmarshal(b, &s); err != nil {
		return NodeState{}, fmt.Errorf("parse the state of a node: %w", err)
	}
	if _, err := ParseNode(s.Node); err != nil {
		return NodeState{}, fmt.Errorf("parse the state of a node: %w", err)
	}
	return s, nil
}
