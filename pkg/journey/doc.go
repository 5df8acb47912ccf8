// Package journey is what Weft knows about journeys: the file a marketer writes, the mail it renders, and
// the rules by which one person's carts end in a message or in a receipt that says why there was none.
//
// It owns: the shape and the check of a journey file ([Parse]), its version, rendering ([Render]), the
// state of one person ([State]) and the decisions over it ([Decider]), and the shape of the records on
// activations.requested ([Request]) and activations.settled ([Receipt]).
//
// It guarantees:
//   - Every armed instance ends in exactly one receipt, here or with whoever delivers the [Request]:
//     never none, never two, whatever the order of events, duplicates and merges of people.
//   - No [Request] for a cart that was bought, by any order of the same person and brand known then.
//   - A running instance keeps the version of the journey that it was armed with.
//   - It is pure: no I/O (but for [Check] and [Preview], which read the file they are given), no clock of
//     its own; the same state, event and clock reading give the same result, ids included.
//
// It must not know how states are kept and timers fire (package keyed), how a message travels (package
// connector), nor how a cart's lines add up (package commerce).
//
// # When an instance begins and ends
//
// An instance is one journey's patience with one cart. It is armed when cart activity leaves the cart with
// a line and no instance of that journey runs for it, and when a merge of two people makes a cart open
// that was open on neither side. Its receipt id follows from brand, cart, journey and the arming event, so
// it is the same however often it is computed. It is due a journey's delay after the person's last
// activity in the brand, and any later activity moves that.
//
//   - An order of the person in the brand ends at once every instance whose cart it leaves empty: purchased.
//   - A cart emptied by removals keeps its instance until it is due (then: emptied). A line put back
//     before that goes on with the same instance: events of one sender may overtake each other, and an end
//     that depended on their order would be a different one after a replay.
//   - When due, and behind the fence, the instance ends: with the first reason found not to send, or with
//     one [Request], whose delivery writes the receipt.
//   - Two people who are one: of two instances of the same journey and cart the one armed first goes on,
//     the other ends as merged, naming the first.
//
// After a decision the same cart arms anew only by cart activity later than the decision. What happened
// earlier and was heard of later belongs to the cart that was decided.
package journey
