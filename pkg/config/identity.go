package config

import (
	"fmt"
	"os"
)

// Load reads what identifiers are understood by: the key, which is made if there is none, and Rules.
func (id Identity) Load() (key, rules []byte, err error) {
	if key, err = LoadOrCreateSecret(id.KeyFile); err != nil {
		return nil, nil, fmt.Errorf("identity.key_file: %w", err)
	}
	rules, err = id.Rules()
	return key, rules, err
}

// Rules is the text of the rules file; nil: none is configured, so that the shipped rules hold.
func (id Identity) Rules() ([]byte, error) {
	if id.RulesFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(id.RulesFile)
	if err != nil {
		return nil, fmt.Errorf("identity.rules_file: %w", err)
	}
	if text == nil {
		text = []byte{} // an empty file is no missing one: it is a fault
	}
	return text, nil
}
