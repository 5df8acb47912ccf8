package collector

import (
	"fmt"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/weft-cdp/weft/pkg/event"
	"github.com/weft-cdp/weft/services/collector/hooks"
)

// rareLogEvery spaces the log lines about what panics or cannot be read now, at the HTTP door and of each inlet: a
// defect that strikes every record must not write a stack for each. The counter of rejected records counts all of them.
const rareLogEvery = 10 * time.Second

// rarely is a log that says the same once in rareLogEvery.
func rarely(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, rareLogEvery, 1, 0)
	}))
}

// take is the intake's; an item on which it panics is rejected. Without an answer the sender would come again for ever,
// with the good items of the batch, too.
func (d *door) take(it item, fill event.Filling, origin string, at place) (r record) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		d.panicked("item panicked, it is set aside on events.rejected", it.source, v)
		if it.desk != nil {
			*it.desk = desk{} // whatever it was in the middle of
		}
		meta := it.meta
		meta.MessageID = newMessageID()
		body, forbidden := d.intake.remains(it.source, meta.Brand, it.body, fill)
		if forbidden {
			r = record{meta: meta, left: leftSuppressed}
			return
		}
		r = d.intake.reject(body, meta, nil, &event.Error{Reason: reasonPanic, Detail: fmt.Sprint(v)}, origin, at)
	}()
	return d.intake.take(it, fill, origin, at)
}

// remains is what may be kept of an item that is set aside; forbidden: nothing, for it names one who is on the suppression
// list, or the consent that its source asks for is not given. Where looking panics, too, it is not known whom it
// names: then it is set aside without its bytes. A nil source asks for no consent.
func (in *intake) remains(s *source, brand string, body []byte, fill event.Filling) (kept []byte, forbidden bool) {
	defer func() {
		if recover() != nil {
			kept, forbidden = nil, false
		}
	}()
	if s == nil {
		return body, in.suppresses(brand, body, fill)
	}
	return body, s.suppress && in.suppresses(brand, body, fill) || s.consent != nil && s.consent.forbids(in.glimpse(body, fill))
}

// verify looks whether a delivery proves who sent it; one on which that panics does not, and its provider sends it again.
func (d *door) verify(h *hook, delivery *hooks.Delivery) (err error) {
	defer func() {
		if v := recover(); v != nil {
			d.panicked("proof of a webhook panicked, it is refused", h.source, v)
			err = hooks.ErrUnsigned
		}
	}()
	return h.reader.Verify(delivery)
}

// events reads a delivery; one on which that panics is rejected as a whole.
func (d *door) events(h *hook, delivery *hooks.Delivery) (res hooks.Result) {
	defer func() {
		if v := recover(); v != nil {
			d.panicked("webhook panicked, it is set aside on events.rejected", h.source, v)
			res = hooks.Result{Refused: []hooks.Refused{{Item: delivery.Body, Why: &event.Error{Reason: reasonPanic, Detail: fmt.Sprint(v)}}}}
		}
	}()
	return h.reader.Events(delivery)
}

func (d *door) panicked(what string, s *source, v any) {
	if line := d.rarely.Check(zap.ErrorLevel, what); line != nil {
		line.Write(zap.String("source", s.name), zap.String("panic", fmt.Sprint(v)), zap.ByteString("stack", debug.Stack()))
	}
}
