//go:build !linux || nolibchdb

package embedded

import (
	"fmt"
	"os"
)

// runClickHouse is Linux only, and left out of builds with the tag nolibchdb: what loads the library needs a C library
// beside the binary, even with CGO_ENABLED=0, which a distroless image has not.
func runClickHouse([]string) int {
	fmt.Fprintln(os.Stderr, "clickhouse-server: not in this build; give the address of a ClickHouse in clickhouse.addresses")
	return 1
}
