package enrich

import (
	"fmt"
	"net/netip"
	"strings"
)

// Proxies are addresses whose X-Forwarded-For is believed.
type Proxies []netip.Prefix

// ParseProxies reads networks (10.0.0.0/8) and single addresses. The error names the first that is neither.
func ParseProxies(list []string) (Proxies, error) {
	ps := make(Proxies, 0, len(list))
	for i, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			ip, err2 := netip.ParseAddr(text)
			if err2 != nil {
				return nil, fmt.Errorf("[%d]: %q is neither a network such as 10.0.0.0/8 nor an address", i, text)
			}
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		ps = append(ps, p.Masked())
	}
	return ps, nil
}

func (ps Proxies) trust(ip netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// maxHops bounds how far a chain of proxies is followed.
const maxHops = 16

// ClientIP is the address of whoever made a request: the other end of the connection, or, as long as that is a
// trusted proxy, whom it says to speak for. The header is read from its end: what stands before the first address
// that is not trusted was written by whoever sits there, who may write anything.
func (ps Proxies) ClientIP(peer netip.Addr, forwardedFor []string) netip.Addr {
	ip := peer.Unmap()
	if len(ps) == 0 || len(forwardedFor) == 0 {
		return ip
	}
	list := strings.Split(strings.Join(forwardedFor, ","), ",")
	for hop := 0; hop < maxHops && hop < len(list) && ps.trust(ip); hop++ {
		next, ok := parseHop(list[len(list)-1-hop])
		if !ok {
			break
		}
		ip = next
	}
	return ip
}

// parseHop reads one entry: an address, maybe with a port.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap(), true
	}
	ip, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return ip.Unmap(), err == nil
}
