package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const cardRules = `
types:
  user_id: {rank: 0x10, find: userId, known: true}
  card: {rank: 0x50, find: properties.card, normalise: [digits], scope: brand}
`

func TestIdentityRulesTest(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"rules.yaml":  cardRules,
		"broken.yaml": cardRules + "  mail:\n    rank: 0x10\n    fnd: traits.mail\n",
		"event.json":  `{"type":"track","event":"Sale","userId":" u-1 ","properties":{"card":"12 34"}}`,
		"two.json":    `{"type":"track","event":"Sale","userId":"null"}` + "\n" + `{"type":"page","userId":"u"}`,
		"device.json": `{"type":"page","anonymousId":"a"}` + "\n" + `{"type":"identify","userId":"u","anonymousId":"a"}` + "\n" +
			`{"type":"track","event":"signed out","anonymousId":"a"}`,
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	code, stdout, stderr := weft(t, "identity rules test "+at("rules.yaml")+" "+at("event.json")+" --brand shoes")
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "a key of zeros")
	require.Regexp(t, `^line 1: track Sale\n  user_id  u-1   10[0-9a-f-]{34} known\n  card     1234  50[0-9a-f-]{34}\n$`, stdout)

	code, stdout, _ = weft(t, "identity rules test shipped "+at("two.json"))
	require.Equal(t, exitError, code)
	require.Regexp(t, `^line 1: track Sale\n  user_id  null  ignored: blocked\n  names nobody: a profile of its own\nline 2: page \n  user_id  u  10`, stdout)

	code, stdout, _ = weft(t, "identity rules test shipped "+at("device.json"))
	require.Zero(t, code)
	require.Regexp(t, `anonymous_id  a  e0[0-9a-f-]{34} device\n  without a name: .* after 30m0s of silence\n`, stdout)
	require.Contains(t, stdout, "  a log-in: if the device")
	require.Contains(t, stdout, "  a log-out: ends the slice of a shared device; on a device of one person, what follows without a name is nobody's\n")

	code, _, stderr = weft(t, "identity rules test "+at("broken.yaml")+" "+at("event.json"))
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, at("broken.yaml")+":5: types.mail.rank: 0x10 is that of user_id")
	require.Contains(t, stderr, at("broken.yaml")+":7: types.mail.fnd: unknown key")
}

func TestCheckReadsTheRulesFile(t *testing.T) {
	dir := writeFiles(t, map[string]string{"rules.yaml": cardRules + "  x: {}\n"})
	file := filepath.Join(dir, "rules.yaml")
	code, stdout, _ := weft(t, "check", "WEFT_IDENTITY_RULES_FILE="+file)
	require.Equal(t, exitError, code)
	require.Contains(t, stdout, "FAIL identity rules "+file+":5: types.x.rank: is missing")
}
