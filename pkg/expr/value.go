package expr

import (
	"errors"
	"fmt"
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/weft-cdp/weft/pkg/event"
)

func celString(s string) ref.Val { return types.String(s) }

// nothing is what stands for a member that is not there (absent) and for null. Both have no members, no elements
// and no size.
type nothing struct{ there bool }

var (
	absent   = &nothing{}
	null     = &nothing{there: true}
	nothings = types.NewObjectType("null", traits.ContainerType|traits.IndexerType|traits.IterableType|traits.SizerType)
)

var errConvert = errors.New("cannot be converted")

// ConvertToNative is part of ref.Val.
func (n *nothing) ConvertToNative(to reflect.Type) (any, error) {
	return types.NullValue.ConvertToNative(to)
}

// ConvertToType is part of ref.Val.
func (n *nothing) ConvertToType(to ref.Type) ref.Val {
	if to == types.TypeType {
		return types.NullType
	}
	return types.NewErr("nothing is there that could be a %s: use default(x, ...)", to.TypeName())
}

// Equal is part of ref.Val.
func (n *nothing) Equal(other ref.Val) ref.Val { return types.Bool(isNothing(other)) }

// Type is part of ref.Val.
func (n *nothing) Type() ref.Type { return nothings }

// Value is part of ref.Val.
func (n *nothing) Value() any { return nil }

// Size is part of traits.Sizer.
func (n *nothing) Size() ref.Val { return types.IntZero }

// Contains is part of traits.Container.
func (n *nothing) Contains(ref.Val) ref.Val { return types.False }

func isNothing(v ref.Val) bool {
	switch v.(type) {
	case *nothing, types.Null:
		return true
	}
	return false
}

// object is a JSON object as it stands in the text; it is listed when first looked into.
type object struct {
	raw    []byte
	listed bool
	list   event.Object
}

var _ traits.Mapper = (*object)(nil)

func (o *object) members() *event.Object {
	if !o.listed {
		o.list.Read(o.raw)
		o.listed = true
	}
	return &o.list
}

func (o *object) member(name string) ref.Val { return fromJSON(o.members().Find(name).Raw) }

// Find is part of traits.Mapper.
func (o *object) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	v := o.member(string(name))
	return v, v != absent
}

// Get is part of traits.Indexer.
func (o *object) Get(key ref.Val) ref.Val {
	if v, ok := o.Find(key); ok {
		return v
	}
	return absent
}

// Contains is part of traits.Container.
func (o *object) Contains(key ref.Val) ref.Val {
	_, ok := o.Find(key)
	return types.Bool(ok)
}

// Size is part of traits.Sizer.
func (o *object) Size() ref.Val { return types.Int(len(o.names())) }

// names are those of the members, each once.
func (o *object) names() []string {
	list := o.members()
	names := make([]string, 0, list.Len())
	seen := make(map[string]bool, list.Len())
	for i := range list.Len() {
		if n := list.Name(i); !seen[n] {
			seen[n] = true
			names = append(names, n)
		}
	}
	return names
}

// Iterator is part of traits.Iterable: it walks the names.
func (o *object) Iterator() traits.Iterator {
	it := &iterator{}
	for _, n := range o.names() {
		it.left = append(it.left, types.String(n))
	}
	return it
}

// Equal is part of ref.Val.
func (o *object) Equal(other ref.Val) ref.Val { return types.Bool(equal(o, other)) }

// Type is part of ref.Val.
func (o *object) Type() ref.Type { return types.MapType }

// Value is part of ref.Val.
func (o *object) Value() any { return o.raw }

// ConvertToType is part of ref.Val.
func (o *object) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.MapType:
		return o
	case types.TypeType:
		return types.MapType
	}
	return types.NewErr("a map is no %s", to.TypeName())
}

// ConvertToNative is part of ref.Val.
func (o *object) ConvertToNative(to reflect.Type) (any, error) {
	m := make(map[ref.Val]ref.Val, o.members().Len())
	for _, n := range o.names() {
		m[types.String(n)] = plain(o.member(n))
	}
	return types.NewRefValMap(types.DefaultTypeAdapter, m).ConvertToNative(to)
}

// array is a JSON array as it stands in the text.
type array struct {
	raw   []byte
	items [][]byte
}

var _ traits.Lister = (*array)(nil)

func newArray(raw []byte) *array { return &array{raw, event.Elements(raw)} }

// Add is part of traits.Adder.
func (a *array) Add(other ref.Val) ref.Val {
	list, ok := other.(traits.Lister)
	if !ok {
		return types.MaybeNoSuchOverloadErr(other)
	}
	all := a.values()
	for it := list.Iterator(); it.HasNext() == types.True; {
		all = append(all, it.Next())
	}
	return types.NewRefValList(types.DefaultTypeAdapter, all)
}

func (a *array) values() []ref.Val {
	vs := make([]ref.Val, len(a.items))
	for i, raw := range a.items {
		vs[i] = fromJSON(raw)
	}
	return vs
}

func (a *array) at(i int64) ref.Val {
	if i < 0 || i >= int64(len(a.items)) {
		return absent
	}
	return fromJSON(a.items[i])
}

// Get is part of traits.Indexer.
func (a *array) Get(index ref.Val) ref.Val {
	i, ok := plain(index).(types.Int)
	if !ok {
		return types.MaybeNoSuchOverloadErr(index)
	}
	return a.at(int64(i))
}

// Contains is part of traits.Container.
func (a *array) Contains(v ref.Val) ref.Val {
	for _, raw := range a.items {
		if equal(fromJSON(raw), v) {
			return types.True
		}
	}
	return types.False
}

// Size is part of traits.Sizer.
func (a *array) Size() ref.Val { return types.Int(len(a.items)) }

// Iterator is part of traits.Iterable.
func (a *array) Iterator() traits.Iterator { return &iterator{raw: a.items} }

// Equal is part of ref.Val.
func (a *array) Equal(other ref.Val) ref.Val { return types.Bool(equal(a, other)) }

// Type is part of ref.Val.
func (a *array) Type() ref.Type { return types.ListType }

// Value is part of ref.Val.
func (a *array) Value() any { return a.raw }

// ConvertToType is part of ref.Val.
func (a *array) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.ListType:
		return a
	case types.TypeType:
		return types.ListType
	}
	return types.NewErr("a list is no %s", to.TypeName())
}

// ConvertToNative is part of ref.Val.
func (a *array) ConvertToNative(to reflect.Type) (any, error) {
	vs := a.values()
	for i := range vs {
		vs[i] = plain(vs[i])
	}
	return types.NewRefValList(types.DefaultTypeAdapter, vs).ConvertToNative(to)
}

// iterator walks values, or raw ones that become values in their turn.
type iterator struct {
	left []ref.Val
	raw  [][]byte
}

var _ traits.Iterator = (*iterator)(nil)

// HasNext is part of traits.Iterator.
func (it *iterator) HasNext() ref.Val { return types.Bool(len(it.left)+len(it.raw) > 0) }

// Next is part of traits.Iterator.
func (it *iterator) Next() ref.Val {
	if len(it.left) > 0 {
		v := it.left[0]
		it.left = it.left[1:]
		return v
	}
	if len(it.raw) > 0 {
		v := fromJSON(it.raw[0])
		it.raw = it.raw[1:]
		return v
	}
	return nil
}

// ConvertToNative is part of ref.Val.
func (it *iterator) ConvertToNative(reflect.Type) (any, error) { return nil, errConvert }

// ConvertToType is part of ref.Val.
func (it *iterator) ConvertToType(ref.Type) ref.Val {
	return types.NewErr("an iterator cannot be converted")
}

// Equal is part of ref.Val.
func (it *iterator) Equal(ref.Val) ref.Val { return types.False }

// Type is part of ref.Val.
func (it *iterator) Type() ref.Type { return types.IteratorType }

// Value is part of ref.Val.
func (it *iterator) Value() any { return nil }

// fromJSON is a checked JSON value as CEL has it; nil is absent.
func fromJSON(raw []byte) ref.Val {
	if len(raw) == 0 {
		return absent
	}
	switch raw[0] {
	case '{':
		return &object{raw: raw}
	case '[':
		return newArray(raw)
	case '"':
		return types.String(event.RawText(raw))
	case 't':
		return types.True
	case 'f':
		return types.False
	case 'n':
		return null
	}
	return &number{text: event.View(raw)}
}

func trimSpace(raw []byte) []byte {
	for len(raw) > 0 && isSpace(raw[0]) {
		raw = raw[1:]
	}
	for len(raw) > 0 && isSpace(raw[len(raw)-1]) {
		raw = raw[:len(raw)-1]
	}
	return raw
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// nameOf is the kind of a value in words for people.
func nameOf(v ref.Val) string {
	switch x := v.(type) {
	case *number, types.Int, types.Uint, types.Double:
		return "number"
	case *nothing:
		if !x.there {
			return "value that is not there"
		}
		return "null"
	case types.Null:
		return "null"
	case types.String:
		return "text"
	}
	return fmt.Sprint(v.Type().TypeName())
}
