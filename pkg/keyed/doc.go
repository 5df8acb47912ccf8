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
// reads the states it needs in one pipeline, decides in memory, and writes one script call (rule 2). The
// script is accepted only if the slot's applied offset and the revision of every state are those that the
// worker read; revisions are random and never repeat. A worker that is refused or gets no answer reads
// the slot again. After acceptance the worker publishes the outbox in order, never past a failed request,
// applies the moves, then commits the applied offset to Kafka; the next call trims what is done. A new
// owner first finishes what it finds in the slot. Kafka's commit only serves the fence; where to resume
// is the slot's applied offset. A slot that is behind Kafka's commit has lost writes: the stage stops.
//
// Merging L into W, when L's owner reads the merge: L's state is frozen with its payload and a pointer to
// W, and a move is noted, in the batch's script. Bringing the move home is a compare-and-set on W's
// revision that merges the payload and notes "origin L is in, up to this move". A late record for L is a
// move too. A move starts at its origin's own pointer and takes every hop; each hop, live or frozen, drops
// what its notes cover; a frozen hop whose payload has not arrived yet is helped first. Notes travel with
// the state. Pointers are never shortened.
//
// Nothing is decided before everything it depends on has arrived (rule 3): a timer seen due takes a
// ticket for the next walk of the Fence to begin, and fires behind the end of that walk, for all that was
// due when the ticket was taken.
//
// # What it owns, guarantees, must not know
//
// It owns the slots in Redis and the order of effects. It guarantees that each record of the input is
// applied to exactly one live state once, that each output is published at least once with a position by
// which the reader makes it once, that each timer fires at most once, and never before the fence allows
// it, as long as Kafka and Redis keep what they acknowledged. It must not know what an event, a profile
// or a journey is.
package keyed
