package prove

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// checkNoCallHome watches the zone's process for a while: it may listen where it
// says, hold what clients opened to that, and nothing else.
func checkNoCallHome(ctx context.Context, e *env) (f Finding, err error) {
	const looks, pause = 40, 50 * time.Millisecond
	f.Did = fmt.Sprintf("Read the zone's sockets from /proc %d times in %v.", looks, looks*pause)
	var listening, accepted, own, outgoing int
	seen := map[string]bool{}
	for range looks {
		conns, err := connections(e.o.PID)
		if err != nil {
			return f, err
		}
		ports := map[string]bool{}
		for _, c := range conns {
			if c.listening {
				ports[portOf(c.local)] = true
			}
		}
		for _, c := range conns {
			line := c.table + " " + readable(c.local) + " → " + readable(c.remote)
			if seen[line] {
				continue
			}
			seen[line] = true
			switch {
			case c.listening:
				listening++
				evidence(&f, "listens: %s %s", c.table, readable(c.local))
			case ports[portOf(c.local)]:
				accepted++
			case ports[portOf(c.remote)] && hostOf(c.remote) == hostOf(c.local):
				own++ // a demonstration is its own first client
			default:
				outgoing++
				evidence(&f, "NOT ASKED FOR: %s", line)
			}
		}
		select {
		case <-ctx.Done():
			return f, ctx.Err()
		case <-time.After(pause):
		}
	}
	evidence(&f, "%d connections that clients had opened, %d of the process to its own listeners", accepted, own)
	if outgoing > 0 {
		return broken(f, fmt.Sprintf("the zone opened %d connections of its own", outgoing))
	}
	if listening == 0 {
		return broken(f, "the zone does not even listen: nothing was shown")
	}
	f.Outcome = Kept
	f.Saw = fmt.Sprintf("%s, %d accepted connections, none opened by the zone itself; no datagram socket.", plural(listening, "listening sockets"), accepted)
	return f, nil
}

func hostOf(hexAddress string) string {
	host, _, _ := strings.Cut(hexAddress, ":")
	return host
}

func portOf(hexAddress string) string {
	_, port, _ := strings.Cut(hexAddress, ":")
	return port
}

// readable turns "0100007F:2328" into 127.0.0.1:9000.
func readable(hexAddress string) string {
	host, port, ok := strings.Cut(hexAddress, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return hexAddress
	}
	ip := make(net.IP, 0, 16)
	for i := 0; i+8 <= len(host); i += 8 {
		word, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil {
			return hexAddress
		}
		ip = append(ip, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	return net.JoinHostPort(ip.String(), strconv.FormatUint(n, 10))
}
