//go:build !linux

package embedded

import (
	"fmt"
	"os"
	"syscall"
)

// dieWithParent is Linux only; elsewhere a guard that is killed leaves its command behind.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// runClickHouse is Linux only.
func runClickHouse([]string) int {
	fmt.Fprintln(os.Stderr, "clickhouse-server: only on Linux; give the address of a ClickHouse in clickhouse.addresses")
	return 1
}
