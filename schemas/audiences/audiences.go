// Package audiences carries the shipped example of an audience file, which is in force where the
// configuration names none. It owns the file and nothing else; package profile reads it.
package audiences

import _ "embed" // for the directive below

// ExampleName is the name of the shipped file in faults and logs.
const ExampleName = "schemas/audiences/example.yaml"

//go:embed example.yaml
var example []byte

// Example is the text of the shipped file.
func Example() []byte { return append([]byte(nil), example...) }
