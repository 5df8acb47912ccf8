// Package identity carries the shipped rules of identity, which are in force where the configuration names no rules
// file. It owns the file and nothing else; the package of that name below pkg reads it.
package identity

import _ "embed" // for the directive below

// RulesName is the name of the shipped file in faults and logs.
const RulesName = "schemas/identity/rules.yaml"

//go:embed rules.yaml
var rules []byte

// Rules is the text of the shipped file.
func Rules() []byte { return append([]byte(nil), rules...) }
