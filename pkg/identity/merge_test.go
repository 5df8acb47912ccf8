package identity

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func exampleMerge() Merge {
	return Merge{
		Loser: node(9).String(), Winner: node(3).String(), Members: []string{node(9).String(), node(12).String()}, Version: 3,
		Cause: Cause{Source: "events.collected:0:7", MessageID: "m7", Rule: RuleSameEvent, Time: time.UnixMilli(1_700_000_000_120).UTC()},
		Evidence: []Evidence{
			{Type: "user_id", Value: "u1", Node: node(3).String()},
			{Type: "email", Value: "<jane>@example.com", Node: node(9).String()},
		},
	}
}

func TestMergeText(t *testing.T) {
	b, err := exampleMerge().Encode()
	require.NoError(t, err)
	require.JSONEq(t, `{
		"loser": "10000009-0000-8000-8000-000000000000", "winner": "10000003-0000-8000-8000-000000000000",
		"members": ["10000009-0000-8000-8000-000000000000", "1000000c-0000-8000-8000-000000000000"], "version": 3,
		"cause": {"source": "events.collected:0:7", "messageId": "m7", "rule": "same_event", "time": "2023-11-14T22:13:20.120Z"},
		"evidence": [
			{"type": "user_id", "value": "u1", "node": "10000003-0000-8000-8000-000000000000"},
			{"type": "email", "value": "<jane>@example.com", "node": "10000009-0000-8000-8000-000000000000"}]}`, string(b))
	back, err := ParseMerge(b)
	require.NoError(t, err)
	require.Equal(t, exampleMerge(), back)
	later := strings.Replace(string(b), `{"loser"`, `{"newField":1,"loser"`, 1)
	_, err = ParseMerge([]byte(later))
	require.NoError(t, err, "a field added later is left alone")
}

func TestParseMergeRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Merge){
		"loser":       func(m *Merge) { m.Loser = "x" },
		"winner":      func(m *Merge) { m.Winner = "" },
		"not before":  func(m *Merge) { m.Winner, m.Loser = m.Loser, m.Winner },
		"members[1]":  func(m *Merge) { m.Members[1] = "x" },
		"do not list": func(m *Merge) { m.Members = m.Members[1:] },
		"version 2":   func(m *Merge) { m.Version = 2 },
		"evidence[0]": func(m *Merge) { m.Evidence[0].Node = "" },
	} {
		m := exampleMerge()
		spoil(&m)
		b, err := m.Encode()
		require.NoError(t, err)
		_, err = ParseMerge(b)
		require.ErrorContains(t, err, name)
	}
	for _, s := range []string{"", "null", "{}", "[]", `{"cause":{"time":"yesterday"}}`, `{"cause":1}`} {
		_, err := ParseMerge([]byte(s))
		require.Error(t, err, s)
	}
}

func FuzzParseMerge(f *testing.F) {
	b, err := exampleMerge().Encode()
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"loser":"10000009-0000-8000-8000-000000000000"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMerge(b)
		if err != nil {
			return
		}
		text, err := m.Encode()
		require.NoError(t, err)
		back, err := ParseMerge(text)
		require.NoError(t, err)
		if len(m.Evidence) == 0 {
			m.Evidence, back.Evidence = nil, nil
		}
		require.Equal(t, m, back)
	})
}
