package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// What Redis can say beside a reply. All of it is for now: nothing was lost, the same call is right again
// later, and the caller holds meanwhile. Each says what a person can do about it.
var (
	// ErrMemory: the memory limit is reached, and Redis evicts nothing (maxmemory-policy noeviction).
	ErrMemory = errors.New("redis has reached its memory limit and takes no writes: raise maxmemory, or give it more nodes")
	// ErrDisk: what is written can not be kept.
	ErrDisk = errors.New("redis can not write to its disk and takes no writes: see its log, and free space")
	// ErrReadOnly: the server at this address became a replica.
	ErrReadOnly = errors.New("this redis is a replica and takes no writes: redis.addresses must name its master")
	// ErrReplicas: fewer replicas are there than min-replicas-to-write asks for.
	ErrReplicas = errors.New("redis has too few replicas in reach and takes no writes")
	// ErrLoading: Redis was started and still reads its data.
	ErrLoading = errors.New("redis was started and still reads its data")
	// ErrCluster: a part of the slots has no master now.
	ErrCluster = errors.New("redis cluster does not serve all of its slots now")
	// ErrBusy: a script of somebody's blocks Redis, or all its connections are taken.
	ErrBusy = errors.New("redis is busy")
	// ErrAccess: the user or the password is wrong, or may not do this.
	ErrAccess = errors.New("redis refuses this user: see redis.username and redis.password_file")
	// ErrUnreachable: no answer came. A write may or may not have been done.
	ErrUnreachable = errors.New("redis does not answer")
)

// codes are the words that Redis begins its errors with (Redis 7: src/server.c, createSharedObjects).
var codes = []struct {
	code string
	err  error
}{
	{"OOM", ErrMemory},
	{"MISCONF", ErrDisk}, {"IOERR", ErrDisk},
	{"READONLY", ErrReadOnly},
	{"NOREPLICAS", ErrReplicas},
	{"LOADING", ErrLoading}, {"MASTERDOWN", ErrLoading},
	{"CLUSTERDOWN", ErrCluster}, {"TRYAGAIN", ErrCluster}, {"MOVED", ErrCluster}, {"ASK", ErrCluster},
	{"BUSY", ErrBusy}, {"ERR max number of clients reached", ErrBusy},
	{"NOAUTH", ErrAccess}, {"WRONGPASS", ErrAccess}, {"NOPERM", ErrAccess},
}

// classified wraps err in the class that it belongs to, if it belongs to one. Every error of this package
// has passed through it once.
func classified(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, redis.ErrPoolTimeout) {
		return fmt.Errorf("%w (%w)", ErrBusy, err)
	}
	var said redis.Error
	if errors.As(err, &said) {
		text := said.Error()
		for _, c := range codes {
			// Before Redis 7 a script's own error hides the code of the command that failed behind a dash.
			if text == c.code || strings.HasPrefix(text, c.code+" ") || strings.HasPrefix(text, "ERR ") && strings.Contains(text, "-"+c.code+" ") {
				return fmt.Errorf("%w (%w)", c.err, err)
			}
		}
		return err
	}
	var broken net.Error
	if errors.As(err, &broken) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w (%w)", ErrUnreachable, err)
	}
	return err
}

// The classes of errors, as labels of metrics: a closed set.
const (
	ClassMemory      = "memory"
	ClassDisk        = "disk"
	ClassReadOnly    = "readonly"
	ClassReplicas    = "replicas"
	ClassLoading     = "loading"
	ClassCluster     = "cluster"
	ClassBusy        = "busy"
	ClassAccess      = "access"
	ClassUnreachable = "unreachable"
	ClassNonDurable  = "non_durable"
	ClassCanceled    = "canceled" // the caller has ended its wait
	ClassOther       = "other"    // most likely a defect
)

// Class names the class of an error of this package; "" for nil.
func Class(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range []struct {
		err   error
		class string
	}{
		{ErrMemory, ClassMemory}, {ErrDisk, ClassDisk}, {ErrReadOnly, ClassReadOnly}, {ErrReplicas, ClassReplicas},
		{ErrLoading, ClassLoading}, {ErrCluster, ClassCluster}, {ErrBusy, ClassBusy}, {ErrAccess, ClassAccess},
		{ErrUnreachable, ClassUnreachable}, {ErrNonDurable, ClassNonDurable},
		{context.Canceled, ClassCanceled}, {context.DeadlineExceeded, ClassCanceled},
	} {
		if errors.Is(err, c.err) {
			return c.class
		}
	}
	return ClassOther
}
