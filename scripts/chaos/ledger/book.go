package ledger

import "time"

// Mail is one that came.
type Mail struct {
	Message string // its id, before the @
	To      string
	At      time.Time
}

// Note is something that happened and is told at the end.
type Note struct{ Stage, What string }

// Strikes counts by stage or server, and by kind.
type Strikes map[string]map[string]int

// Add counts one.
func (s Strikes) Add(stage, kind string, n int) {
	if s[stage] == nil {
		s[stage] = map[string]int{}
	}
	s[stage][kind] += n
}

// Book is what a ledger says.
type Book struct {
	Plan    *Plan // nil: nothing was begun
	Opened  time.Time
	Done    map[string]time.Time // actions, by when their doer did them
	Acked   map[string]time.Time
	Mails   []Mail
	Strikes Strikes
	Notes   []Note
	Falls   []Note // of services that ended by themselves
	Loaded  bool
	Closed  bool
	Last    time.Time // of the last entry
}

func newBook() Book {
	return Book{
		Done: map[string]time.Time{}, Acked: map[string]time.Time{}, Strikes: Strikes{},
	}
}

// Under says that a run is under way: it was begun and never judged.
func (b *Book) Under() bool { return b.Plan != nil && !b.Closed }

func (b *Book) apply(e Entry) {
	at := time.UnixMilli(e.At)
	switch e.Kind {
	case Opened:
		b.Plan, b.Opened = e.Plan, at
	case Did:
		for _, a := range e.Actions {
			b.Done[a] = at
		}
	case Acked:
		for _, a := range e.Actions {
			if _, before := b.Acked[a]; !before {
				b.Acked[a] = at
			}
		}
	case Mailed:
		b.Mails = append(b.Mails, Mail{Message: e.Message, To: e.To, At: at})
	case Struck:
		b.Strikes.Add(e.Stage, e.What, 1)
	case Noted:
		b.Notes = append(b.Notes, Note{Stage: e.Stage, What: e.What})
	case Fell:
		b.Falls = append(b.Falls, Note{Stage: e.Stage, What: e.What})
	case Loaded:
		b.Loaded = true
	case Closed:
		b.Closed = true
	}
	if e.Kind != Did { // whose time is the doer's
		b.Last = at
	}
}
