package main

import (
	"os"
	"testing"

	"github.com/weft-cdp/weft/pkg/embedded"
)

// envMain makes the test binary weft itself, so that tests run the program as it is without building it.
const envMain = "WEFT_TEST_MAIN"

func TestMain(m *testing.M) {
	if code, ok := embedded.Child(os.Args[1:]); ok {
		os.Exit(code)
	}
	if os.Getenv(envMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}
