package inlet

import (
	"bytes"
	"embed"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weft-cdp/weft/pkg/config"
)

//go:embed presets/*.yaml
var presetFiles embed.FS

// Preset is a ready mapping, with a record as an example and what becomes of it.
type Preset struct {
	Name        string            `yaml:"-"`
	Description string            `yaml:"description"`
	Mapping     map[string]string `yaml:"mapping"`
	Example     string            `yaml:"example"`
	Gives       string            `yaml:"gives"`
}

// PresetNamed reads a shipped preset.
func PresetNamed(name string) (Preset, error) {
	text, err := presetFiles.ReadFile("presets/" + name + ".yaml")
	if err != nil {
		return Preset{}, fmt.Errorf("%q is none of %s", name, strings.Join(config.Presets, ", "))
	}
	p := Preset{Name: name}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil {
		return Preset{}, fmt.Errorf("preset %s: %w", name, err)
	}
	return p, nil
}
