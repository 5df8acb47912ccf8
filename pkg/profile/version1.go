package profile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/weft-cdp/weft/pkg/commerce"
)

// The form of a State in version 1, which was JSON. It is read for as long as such states may lie in Redis: a
// profile is written in the new form by its next event, and some have none for years.

type state1 struct {
	Traits    map[string]trait1 `json:"t,omitempty"`
	Brands    map[string]brand1 `json:"b,omitempty"`
	First     int64             `json:"f,omitempty"`
	Last      int64             `json:"l,omitempty"`
	Received  int64             `json:"r,omitempty"`
	Events    int64             `json:"e,omitempty"`
	Types     map[string]int64  `json:"y,omitempty"`
	Names     map[string]int64  `json:"n,omitempty"`
	Others    int64             `json:"o,omitempty"`
	Audiences []string          `json:"a,omitempty"`
}

type trait1 struct {
	Value json.RawMessage `json:"v,omitempty"`
	At    int64           `json:"t"`
	ID    uint64          `json:"i"`
	Copy  bool            `json:"c,omitempty"`
}

type brand1 struct {
	Traits map[string]trait1 `json:"t,omitempty"`
	First  int64             `json:"f,omitempty"`
	Last   int64             `json:"l,omitempty"`
	Events int64             `json:"e,omitempty"`
	Orders map[string]order  `json:"o,omitempty"`
	Older  map[string]sum1   `json:"x,omitempty"`
	Carts  commerce.Carts    `json:"c,omitzero"`
}

type sum1 struct {
	Orders int64           `json:"n"`
	Amount decimal.Decimal `json:"a"`
	Units  decimal.Decimal `json:"u,omitzero"`
}

func (s *State) readVersion1(b []byte) error {
	var v state1
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("read profile of version 1: %w", err)
	}
	*s = State{First: v.First, Last: v.Last, Received: v.Received, Events: v.Events, Others: v.Others, Audiences: v.Audiences, traits: traitsOf1(v.Traits), size: len(b)}
	for i, typ := range eventTypes {
		s.types[i] = v.Types[string(typ)]
	}
	for name, n := range v.Names {
		s.names = append(s.names, counted{name, n})
	}
	slices.SortFunc(s.names, func(a, b counted) int { return strings.Compare(a.name, b.name) })
	for name, vb := range v.Brands {
		x := s.brand(name)
		x.first, x.last, x.events, x.traits, x.carts = vb.First, vb.Last, vb.Events, traitsOf1(vb.Traits), vb.Carts
		for id, o := range vb.Orders {
			o.ID = id
			x.orders.list = append(x.orders.list, o)
		}
		slices.SortFunc(x.orders.list, func(a, b order) int { return strings.Compare(a.ID, b.ID) })
		for currency, y := range vb.Older {
			amount, fits := commerce.AmountOf(y.Amount)
			units, fit := commerce.AmountOf(y.Units)
			if !fits || !fit {
				return fmt.Errorf("read profile of version 1: the orders in %s came to %s, more than there can be", currency, y.Amount)
			}
			x.orders.older = addSum(x.orders.older, sum{currency: currency, orders: y.Orders, amount: amount, units: units})
		}
		x.orders.settle()
	}
	return nil
}

func traitsOf1(m map[string]trait1) traits {
	var ts traits
	for name, t := range m {
		ts = append(ts, trait{name: name, value: string(t.Value), at: t.At, id: t.ID, isCopy: t.Copy})
	}
	slices.SortFunc(ts, func(a, b trait) int { return strings.Compare(a.name, b.name) })
	return ts
}
