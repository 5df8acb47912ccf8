package daemon

import "time"

// utcClock stamps log lines in UTC, as everything else in Weft is.
type utcClock struct{}

func (utcClock) Now() time.Time { return time.Now().UTC() }

func (utcClock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }
