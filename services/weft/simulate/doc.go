// Package simulate runs Weft's real services in one process under virtual time, breaks everything around
// them by a seeded plan, and compares what came of it with a simple sequential program.
//
// It owns: the world (Kafka, Redis and ClickHouse in memory, reached over connections that a plan may cut,
// delay, freeze or answer wrongly), the workloads, the oracle, and the list of deliberate mutations that the
// simulation must catch. It is tests only: nothing of it is in the binary. It must not know how the services
// work inside, but for what the architecture promises.
//
// # How to use it
//
//	make simulate SEEDS=1000              a thousand schedules of every shape
//	make simulate SEED=42 SHAPE=crash     one schedule, with its trace
//	make simulate-long MINUTES=60         schedules on and on, counted in a ledger that adds up over runs
//	make simulate-mutations               every mutation must be caught
//
// # How it works
//
// A schedule runs in a testing/synctest bubble: time goes on when all goroutines wait. A process is one
// service with its own clients and its own memory; all its connections go through the world's network, which
// takes them apart into requests and answers (network_test.go, frames_test.go). Before a request goes out and before
// its answer comes back, the plan is asked what shall happen (plan_test.go). A crash cuts all connections of the
// process in that instant and ends it; another starts later. A frozen process reads and sends nothing until
// it thaws, and then goes on with what was in flight, as after SIGSTOP.
//
// Events come in two ways. Where a shape has the collector, every device and the shop's server is an SDK that calls
// its HTTP door and calls again until it hears 200 (sources_test.go, door_test.go), and the till writes into the
// inbox, which the collector's inlet reads. Where it has not, a producer that nothing befalls stands for the doors.
// The oracle takes what events.collected holds as what there is, and holds what the doors said against that.
//
// What happens is derived by a hash from the seed, the process, what the request is, and how many of that
// sort there were: not from one sequence of random numbers, so that a small difference in the order of
// goroutines does not change the whole plan. Each delivery has an instant of its own.
package simulate
