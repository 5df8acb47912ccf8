// Package servers runs what a deployment of Weft stands on, and Weft itself, as processes that can be hurt: three
// Apache Kafka brokers, Redis or a Redis Cluster of three, ClickHouse, the services from bin/weft, and a proxy in
// front of every link between them.
//
// It owns: processes and their files, ports that stay the same over a restart, small disks that can be filled, links
// that can be cut, and the clocks that the services read. It guarantees that nothing outlives this process, and that
// a deployment whose harness was killed can be started again on its data. It must not know why something is hurt,
// nor what is right afterwards.
package servers
