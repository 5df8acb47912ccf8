// Package demo is a simulated shop with its own truth, and a report that holds what Weft made of it against
// that truth.
//
// It owns: the shop (Generate: visitors, their devices and stories, and how each cart must end), the sender,
// which plays it through the public doors as browsers, apps and tills would, a mail server that keeps what it
// gets, and the report. It guarantees that the same seed gives the same stories, that the truth is kept
// without asking Weft, and that a report without faults means that every event, person, order and cart came
// out as the truth has it. It must not know how the services work: it sees an HTTP door, a Kafka topic, a
// mail and ClickHouse, and there is no special path for it anywhere.
package demo
