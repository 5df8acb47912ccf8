package enrich

import (
	"regexp"
	"strings"
	"sync"

	"github.com/mileusna/useragent"

	"github.com/weft-cdp/weft/pkg/event"
)

const (
	// maxAgentBytes bounds what is read, and kept, of a user agent. Real ones stay below 400.
	maxAgentBytes = 1024
	// maxAgents bounds how many are remembered. A shop sees some hundreds again and again; the rest are versions
	// that nobody else has, or made up.
	maxAgents = 4096
)

// agent is what a user agent tells, as the members of objects.
type agent struct {
	device, os, browser []byte // JSON objects; nil if unknown
	bot                 bool
}

// agents remembers what was read: reading one costs some microseconds, and the same ones come again and again.
type agents struct {
	mu    sync.RWMutex
	known map[string]agent
}

func (a *agents) read(text string) agent {
	text = text[:min(len(text), maxAgentBytes)]
	a.mu.RLock()
	x, ok := a.known[text]
	a.mu.RUnlock()
	if ok {
		return x
	}
	x = parseAgent(text)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= maxAgents || a.known == nil {
		a.known = map[string]agent{}
	}
	a.known[strings.Clone(text)] = x // it aliases the event
	return x
}

// programs are user agents of programs that no person looks at, beside those that the library knows: crawlers and
// monitors say so by one of these words, tools by their name at the front.
var programs = regexp.MustCompile(`(?i)bot\b|crawl|spider|slurp|headless|lighthouse|pagespeed|pingdom|gtmetrix|uptime|phantomjs|puppeteer|playwright|selenium|^(curl|wget|python|java|go-http-client|okhttp|libwww|httpx?|axios|node|ruby|php|scrapy|apache-httpclient|postman)\b`)

// cubot makes telephones.
var cubot = regexp.MustCompile(`(?i)cubot`)

func parseAgent(text string) agent {
	if strings.TrimSpace(text) == "" {
		return agent{}
	}
	ua := useragent.Parse(text)
	if ua.Bot || programs.MatchString(cubot.ReplaceAllString(text, "")) {
		return agent{bot: true}
	}
	var a agent
	device := ""
	switch {
	case ua.Tablet, ua.OS == useragent.Android && !strings.Contains(text, "Mobile"): // tablets are the Androids that do not say it
		device = "tablet"
	case ua.Mobile:
		device = "mobile"
	case ua.Desktop:
		device = "desktop"
	}
	a.device = members("type", device, "model", ua.Device)
	a.os = members("name", ua.OS, "version", ua.OSVersion)
	if strings.HasPrefix(text, "Mozilla/") || strings.HasPrefix(text, "Opera/") { // others are apps, which name themselves
		a.browser = members("name", ua.Name, "version", ua.Version)
	}
	return a
}

// members writes an object of two texts; nil without the first.
func members(name1, text1, name2, text2 string) []byte {
	text1, text2 = strings.TrimSpace(text1), strings.TrimSpace(text2)
	if text1 == "" {
		return nil
	}
	b := append(event.AppendJSONString([]byte{'{'}, name1), ':')
	b = event.AppendJSONString(b, text1)
	if text2 != "" {
		b = append(event.AppendJSONString(append(b, ','), name2), ':')
		b = event.AppendJSONString(b, text2)
	}
	return append(b, '}')
}
