package collector

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/weft-cdp/weft/pkg/event"
)

// Codes of error answers, beside the reasons of events; SDKs want "code" and "message" in the body.
const (
	codeUnknownKey  = "unknown_write_key"
	codeNotFound    = "not_found"
	codeDisabled    = "source_disabled"
	codeOrigin      = "origin_not_allowed"
	codeMethod      = "method_not_allowed"
	codeRateLimited = "rate_limited"
	codeUnavailable = "unavailable"
	codeOverloaded  = "overloaded"
	codeIncomplete  = "incomplete_request"
	codeEmptyBatch  = "empty_batch"
	codeInvalid     = "invalid_events" // of a strict source: nothing of a batch could be taken
)

const (
	// retryAfterMin and retryAfterSpread are the seconds that a sender is asked to wait: short, because some
	// SDKs give up after a few tries, and spread, because they all come back.
	retryAfterMin    = 1
	retryAfterSpread = 3
	// maxExplained bounds the rejected items that an answer explains in words; of the others it names the code. A batch
	// of 2,500 numbers is 5 KB and must not be answered with 500.
	maxExplained = 100
	// maxExplanation bounds such words.
	maxExplanation = 200
)

// answer is what a request gets.
type answer struct {
	status      int
	code        string // of an error; empty: none
	body        []byte
	contentType string
	header      [][2]string
}

func ok(body string) answer {
	return answer{status: http.StatusOK, body: []byte(body), contentType: contentJSON}
}

// success is the answer to a request of which everything is stored, and of what is taken and not kept.
var success = ok(`{"success":true}`)

// refusal is the body of an error.
type refusal struct {
	Code     string         `json:"code"`
	Message  string         `json:"message"`
	Rejected []rejectedItem `json:"rejected,omitempty"`
}

// rejectedItem names one event of a request that is on events.rejected.
type rejectedItem struct {
	Index     int    `json:"index"`
	MessageID string `json:"messageId,omitempty"`
	Code      string `json:"code"`
	Message   string `json:"message,omitempty"`
}

func refuse(status int, code, message string) answer {
	return refuseAll(status, refusal{Code: code, Message: message})
}

func refuseAll(status int, r refusal) answer {
	return answer{status: status, code: r.Code, body: encoded(r), contentType: contentJSON}
}

func encoded(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"code":"internal","message":""}`) // cannot be: texts and numbers
	}
	return body
}

// later asks the sender to come again.
func later(code, message string) answer {
	a := refuse(http.StatusServiceUnavailable, code, message)
	seconds := retryAfterMin + rand.IntN(retryAfterSpread) //nolint:gosec // spreading, not a secret
	a.header = append(a.header, [2]string{"Retry-After", strconv.Itoa(seconds)})
	return a
}

// tooFast asks the sender to wait that long. The seconds stand twice: browser SDKs read X-RateLimit-Reset, others
// Retry-After.
func tooFast(wait time.Duration, perSecond float64) answer {
	a := refuse(http.StatusTooManyRequests, codeRateLimited, "this source has sent more events than it may; come again after Retry-After seconds")
	seconds := strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
	a.header = append(a.header, [2]string{"Retry-After", seconds}, [2]string{"X-RateLimit-Reset", seconds},
		[2]string{"X-RateLimit-Limit", strconv.Itoa(int(perSecond))}, [2]string{"X-RateLimit-Remaining", "0"})
	return a
}

func unknownKey() answer {
	return refuse(http.StatusUnauthorized, codeUnknownKey,
		"no source has this write key; send it as the user name of HTTP Basic, as a Bearer token, or as writeKey in the body")
}

func notAllowed(methods string) answer {
	a := refuse(http.StatusMethodNotAllowed, codeMethod, "this path takes "+methods)
	a.header = append(a.header, [2]string{"Allow", methods + ", OPTIONS"})
	return a
}

// status is the one for a reason for which something is never taken: compatible senders know 400 only.
func (s *source) status(reason string) int {
	if reason == event.TooLarge && s != nil && s.strict {
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

// stored answers a request whose items are all in Kafka, on one topic or the other. A batch of which anything was taken
// gets 200, whatever the mode: any other status would have its sender drop or repeat all of it.
func (s *source) stored(recs []record, isBatch bool) answer {
	var rejected []rejectedItem
	for i := range recs {
		r := &recs[i]
		if r.reason == "" {
			continue
		}
		x := rejectedItem{Index: i, Code: r.reason}
		if len(rejected) < maxExplained {
			x.MessageID, x.Message = r.meta.MessageID, r.why[:min(len(r.why), maxExplanation)]
		}
		rejected = append(rejected, x)
	}
	switch {
	case len(rejected) == 0:
		return success
	case len(rejected) < len(recs):
	case !isBatch && (s.strict || recs[0].reason == event.TooLarge):
		return refuse(s.status(recs[0].reason), recs[0].reason, rejected[0].Message)
	case s.strict:
		return refuseAll(http.StatusBadRequest, refusal{Code: codeInvalid, Message: "no event of the batch can be taken", Rejected: rejected})
	}
	return ok(string(encoded(struct {
		Success  bool           `json:"success"`
		Rejected []rejectedItem `json:"rejected"`
	}{true, rejected})))
}
