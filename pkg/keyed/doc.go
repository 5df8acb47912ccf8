// Package keyed is the heart of Weft: state per key over a stream, exactly once in effect, without Kafka
// transactions and without locks. Every stage that keeps state runs on it.
//
// # The protocol in one page
//
// A stage S reads one input topic. All that concerns its partition p lies in one Redis hash slot, under
// the tag {prefix S:p}: a state per key, the timers' index, the outbox (what to publish, numbered), the
// moves (changes for keys of other partitions), the highest source position seen, the ids seen, and the
// applied offset. One worker at a time should own a partition; nothing breaks if two believe they do.
//
// A worker reads a batch, drops records whose source position is not above the highest seen (rule 1),
// reads the states it needs in one command, decides in memory, key by key, and writes one script call
// (rule 2). The script is accepted only if the slot's applied offset and the revision of every state are
// those that the worker read; revisions are random and never repeat. A worker that is refused or gets no
// answer reads the slot again. After acceptance the worker publishes the outbox, applies the moves, then
// commits the applied offset to Kafka; the next call trims what is done. A new owner first finishes what
// it finds in the slot. Kafka's commit serves the fence and shows losses; where to resume is the slot's applied
// offset. A slot that is behind Kafka's commit has lost writes: the stage stops. So has one that counts fewer
// accepted scripts than that commit's metadata, or its own worker, knows of: moves of others and timers leave the
// offset where it is. A rebuild gives a slot a new incarnation, lets the count go on, and marks the slot until it
// is whole: scripts of an older incarnation are refused, and workers stop at the mark. What a stage decides on and
// shares among its slots is vouched for by them (vouch.go).
//
// Outputs leave side by side across target partitions, in order within each, one request in flight, and
// nothing later of this slot before all of them are in Kafka. That is order enough: a reader keeps the
// highest position per source and partition of its own input, so it compares outputs of this slot with
// others of this slot in the same partition only, and the sequences there only grow. A crash in between
// leaves some partitions ahead; the new owner publishes the whole outbox again, from its first number on,
// and those ahead drop what they have. A gap could only open by sending a later number to a partition that
// lacks an earlier one, which nobody does.
//
// Merging L into W, when L's owner reads the merge: L's state is frozen with its payload and a pointer to
// W, and a move is noted, in the batch's script. Bringing the move home is a compare-and-set on W's
// revision that merges the payload and notes "origin L is in, up to this move". A late record for L is a
// move too. A move starts at its origin's own pointer and takes every hop; each hop, live or frozen, drops
// what its notes cover; a frozen hop whose payload has not arrived yet is helped first. Notes travel with
// the state. Pointers are never shortened.
//
// A key that is split or erased is gone: frozen without a target, for good. What still comes to it (late records, moves,
// payloads, merges) is dropped and counted, because all that was decided before is told again, under new keys. Records
// told again (Record.Refold) fold as in life, but what they put out is not published; a new key that waits for them
// (Options.Waits) takes live records in meanwhile, in whatever order, and has its first word, and its timers, behind the
// record that ends the telling. No key comes alive again, so that it is nothing to be told so twice.
//
// Nothing is decided before everything it depends on has arrived (rule 3): timers seen due take a ticket
// for the next walk of the Fence to begin, and fire behind the end of that walk, for all that was due when
// the ticket was taken.
//
// # What can go wrong
//
// Whatever may heal (Redis, Kafka, somebody else's write) holds the partition, with growing, jittered
// pauses, and says why and since when (hold.go). A full Redis refuses the script as a whole, because its
// first write is one that may be refused; trims give memory back and go through.
//
// What fails each time must not hold it for ever, and is set aside (poison.go):
//   - A record on which the fold panics, or behind which the state can not be encoded or is too large, is
//     found by folding its key anew, and goes to events.rejected; all others of the batch stand. A Planner
//     that panics is asked for halves, down to that record.
//   - An output that Kafka refuses for its size goes to events.rejected, shortened, under its number (refuse.go).
//   - A timer that panics is put off in the index, longer each time. Its state is untouched, so that it
//     still fires at most once, behind a fence of then (P6), and has its receipt when it can (P7).
//   - A payload that can not be merged stays in its frozen key, its move in the slot, and all later moves
//     of that origin behind it. Before the commit lets the fence pass, the live key that the move leads to
//     is marked: no timer of it fires while a move waits, since that may be the order which forbids it
//     (P6). The mark is a note like the others: it travels with the state, and goes when the move is in.
//
// # What it owns, guarantees, must not know
//
// It owns the slots in Redis and the order of effects. It guarantees that each record of the input is
// applied to exactly one live state once, or rejected once, or dropped because its key is gone; that each output is published at least once
// with a position by which the reader makes it once; that each timer fires at most once, and never before
// the fence allows it, as long as Kafka and Redis keep what they acknowledged. It must not know what an
// event, a profile or a journey is.
//
// # Where to read on
//
// stage.go runs the workers of a process; worker.go is one partition's loop, recover.go its beginning and
// its tidying, intake.go and pump.go what comes in, publish.go and refuse.go what goes out, slot.go and commit.lua what is
// written. vouch.go compares what slots share. fold.go and foldkey.go decide by a Fold, plan.go by a Planner; gone.go ends keys; move.go and stuck.go bring moves
// home; timers.go and fence.go hold timers back; cell.go and encode.go are the bytes in Redis; rebuild.go,
// refold.go, restore.go and past.go fold history again.
package keyed
