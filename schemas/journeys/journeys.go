// Package journeys holds the journey files that Weft ships. It owns them, guarantees that they pass
// 'weft journey check' (a test of package journey reads them), and knows nothing else.
package journeys

import "embed"

// Files are the shipped journey files.
//
//go:embed *.yaml
var Files embed.FS
