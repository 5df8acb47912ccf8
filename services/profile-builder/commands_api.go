package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/weft-cdp/weft/pkg/explain"
	"github.com/weft-cdp/weft/pkg/identity"
	"github.com/weft-cdp/weft/pkg/stream"
	"github.com/weft-cdp/weft/pkg/topic"
	"github.com/weft-cdp/weft/pkg/undo"
)

const (
	// commandsPath takes commands with POST; with /ID behind it, GET tells how far one is.
	commandsPath = identityPrefix + "commands"
	// previewPath says with POST what a split would do.
	previewPath = identityPrefix + "preview"
	// maxCommandBody is above a command with the most members.
	maxCommandBody = 1 << 20
	// sendTimeout bounds the publishing of a command; it is below writeTimeout.
	sendTimeout = 10 * time.Second
)

// commandsAPI takes what operators say of identities: POST /v1/identity/commands, GET /v1/identity/commands/{id},
// POST /v1/identity/preview. The keys are those of the identity API.
type commandsAPI struct {
	stream   *stream.Client
	ledger   *undo.Ledger
	topics   topic.Set
	loader   identity.Loader
	names    *explain.Explainer
	previews *undo.Previewer // nil: there is no ClickHouse
	log      *zap.Logger
	now      func() time.Time
}

// order is the body of a request: a command, with its identifiers as an operator writes them.
type order struct {
	ID          string               `json:"id"` // of the caller's making, so that a repeated request is one command; empty: one is made
	Kind        identity.CommandKind `json:"kind"`
	Actor       string               `json:"actor"`
	Reason      string               `json:"reason"`
	Brand       string               `json:"brand"`
	Identifiers []string             `json:"identifiers"` // TYPE:VALUE; of a split one to take out, or two whose link is undone
	Split       string               `json:"split"`       // release: the command that is taken back
	Person      string               `json:"person"`      // split: as the preview had it,
	Members     []string             `json:"members"`
	Parts       [][]string           `json:"parts"`
}

// serve answers one request; rest stands behind identityPrefix.
func (a *commandsAPI) serve(r *http.Request, rest string) (any, *apiError) {
	if id, ok := strings.CutPrefix(rest, "commands/"); ok && r.Method == http.MethodGet {
		return a.status(r.Context(), id)
	}
	if r.Method != http.MethodPost {
		return nil, refuse(http.StatusMethodNotAllowed, "method_not_allowed", "POST "+commandsPath+", GET "+commandsPath+"/{id}, or POST "+previewPath)
	}
	var o order
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxCommandBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_body", "the body is no command: "+err.Error())
	}
	var ids []identity.Evidence
	for i, text := range o.Identifiers {
		id, err := a.names.Parse(o.Brand, text)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid_value", fmt.Sprintf("identifiers[%d]: %s", i, err))
		}
		ids = append(ids, identity.Evidence{Type: id.Type, Value: id.Value, Node: id.ID})
	}
	if rest == "preview" {
		return a.preview(r.Context(), ids)
	}
	return a.take(r.Context(), &o, ids)
}

func (a *commandsAPI) status(ctx context.Context, id string) (any, *apiError) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	s, ok, err := a.ledger.Get(ctx, id)
	switch {
	case err != nil:
		return nil, a.unavailable(err)
	case !ok:
		return nil, refuse(http.StatusNotFound, "unknown_command", "no command has this id")
	}
	return s, nil
}

func (a *commandsAPI) unavailable(err error) *apiError {
	a.log.Warn("a command on identities can not be answered for", zap.Error(err))
	return refuse(http.StatusServiceUnavailable, "unavailable", "what this needs does not answer at the moment: try again")
}

// preview says what a split would do, with the command that does it.
func (a *commandsAPI) preview(ctx context.Context, ids []identity.Evidence) (any, *apiError) {
	if a.previews == nil {
		return nil, refuse(http.StatusNotFound, "no_history", "clickhouse.addresses is not configured for this profile-builder, so nothing can be folded again here")
	}
	if len(ids) != 1 && len(ids) != 2 {
		return nil, refuse(http.StatusBadRequest, "invalid_body", "identifiers: want one to take out, or two whose link is undone")
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	node, err := identity.ParseNode(ids[0].Node)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_value", err.Error())
	}
	members, err := identity.Members(ctx, a.loader, node)
	if err != nil {
		return nil, a.unavailable(err)
	}
	q := undo.Question{Person: members[0].String()}
	for _, m := range members {
		q.Members = append(q.Members, m.String())
	}
	if len(ids) == 1 {
		q.Out = ids[0].Node
	} else {
		q.Link = [2]string{ids[0].Node, ids[1].Node}
	}
	v, err := a.previews.Preview(ctx, q)
	switch {
	case errors.Is(err, undo.ErrTied):
		return v, nil // tied says by what
	case errors.Is(err, undo.ErrAlone), errors.Is(err, undo.ErrNotMember), errors.Is(err, undo.ErrTooMany):
		return nil, refuse(http.StatusConflict, "not_splittable", err.Error())
	case err != nil:
		return nil, a.unavailable(err)
	}
	return v, nil
}

// take publishes a command.
func (a *commandsAPI) take(ctx context.Context, o *order, ids []identity.Evidence) (any, *apiError) {
	c := identity.Command{
		ID: o.ID, Kind: o.Kind, Actor: o.Actor, Reason: o.Reason, At: a.now().UTC().Truncate(time.Millisecond),
		Person: o.Person, Members: o.Members, Parts: o.Parts, Split: o.Split,
	}
	if c.Kind != identity.CommandSplit {
		c.Identifiers = ids
	}
	if c.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, a.unavailable(err)
		}
		c.ID = id.String()
	}
	if err := c.Check(); err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_command", err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := undo.Send(ctx, a.stream, a.ledger, a.topics, &c); err != nil {
		return nil, a.unavailable(err)
	}
	return a.status(ctx, c.ID)
}
