//go:build !linux

package embedded

import "syscall"

// dieWithParent is Linux only; elsewhere a guard that is killed leaves its command behind.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
