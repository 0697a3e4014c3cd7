package prove

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"

	"chancery/internal/errs"
	"chancery/wall"
)

// trap is a pair of listeners of our own that nobody may reach from inside.
type trap struct {
	tcp      net.Listener
	udp      net.PacketConn
	touched  atomic.Int64
	addr     string
	udpAddr  string
	finished chan struct{}
}

func setTrap(ctx context.Context) (*trap, error) {
	const op = "prove.setTrap"
	var lc net.ListenConfig
	tcp, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	udp, err := lc.ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		tcp.Close()
		return nil, errs.WrapKind(errs.Unavailable, op, err)
	}
	t := &trap{tcp: tcp, udp: udp, addr: tcp.Addr().String(), udpAddr: udp.LocalAddr().String(), finished: make(chan struct{}, 2)}
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				break
			}
			t.touched.Add(1)
			c.Close()
		}
		t.finished <- struct{}{}
	}()
	go func() {
		for b := make([]byte, 2048); ; {
			if _, _, err := udp.ReadFrom(b); err != nil {
				break
			}
			t.touched.Add(1)
		}
		t.finished <- struct{}{}
	}()
	return t, nil
}

// spring proves that the trap would have noticed: it is touched from here, by both ways.
func (t *trap) spring() error {
	before := t.touched.Load()
	for _, n := range [][2]string{{"tcp", t.addr}, {"udp", t.udpAddr}} {
		c, err := net.DialTimeout(n[0], n[1], time.Second)
		if err != nil {
			return errs.WrapKind(errs.Internal, "prove.spring", err)
		}
		_, _ = c.Write([]byte("control")) // what arrives is counted below
		c.Close()
	}
	for wait := 0; t.touched.Load() < before+2; wait++ {
		if wait > 200 {
			return errs.New(errs.Internal, "prove.spring", "the canary listeners do not notice a visit: the check cannot be relied on")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

func (t *trap) close() {
	t.tcp.Close()
	t.udp.Close()
	<-t.finished
	<-t.finished
}

// checkBreakOut asks every running cell to try to break out while the scratch
// organization serves S3, and watches canaries of its own.
func checkBreakOut(ctx context.Context, e *env) (f Finding, err error) {
	s, err := e.makeScratch(ctx)
	if err != nil {
		return f, err
	}
	if err := s.unseal(ctx); err != nil {
		return f, err
	}
	if err := s.furnish(ctx); err != nil {
		return f, err
	}
	f.Did = "From inside every cell, with S3 being served: TCP, UDP, DNS, raw IP, every socket family, files of others, mount, ptrace, namespaces, io_uring and more."
	t, err := setTrap(ctx)
	if err != nil {
		return f, err
	}
	defer t.close()
	organizations, err := e.operator.Organizations(ctx)
	if err != nil {
		return f, err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served, failures, ended := s.serveMeanwhile(serving)
	for wait := 0; served.Load() == 0 && failures.Load() == 0 && wait < 1000 && ctx.Err() == nil; wait++ {
		time.Sleep(10 * time.Millisecond)
	}
	refused, open, cells := 0, 0, 0
	for _, org := range organizations {
		report, err := e.o.Probe(ctx, org.Name, wall.Probe{
			TCP: []string{t.addr, e.o.S3, e.o.API}, UDP: []string{t.udpAddr},
			Paths: []string{
				filepath.Join(e.o.Dir, "zone.json"), e.o.OperatorKubeconfig, filepath.Join(e.cellDir(s.name), "data", "seal.json"),
				"/etc/passwd", "/proc/1/environ",
			},
			PIDs: []int{e.o.PID},
		})
		if errs.Is(err, errs.Unavailable) {
			evidence(&f, "%s: its cell does not run; not probed", org.Name)
			continue
		}
		if err != nil {
			return f, err
		}
		cells++
		for _, a := range report.Attempts {
			if a.Refused {
				refused++
				evidence(&f, "%s: %s: refused (%s)", org.Name, a.Name, a.Detail)
			} else {
				open++
				evidence(&f, "%s: %s: NOT REFUSED (%s)", org.Name, a.Name, a.Detail)
			}
		}
	}
	touched := t.touched.Load()
	stop()
	<-ended
	if err := t.spring(); err != nil {
		return f, err
	}
	evidence(&f, "canaries on 127.0.0.1 were touched %d times from inside, and noticed a visit from outside", touched)
	evidence(&f, "meanwhile S3 answered %d requests, %d failed", served.Load(), failures.Load())
	for _, org := range organizations {
		for _, m := range org.Status.Unenforced {
			f.Missing = append(f.Missing, fmt.Sprintf("cell of %s: not enforced on this host: %s", org.Name, m))
		}
	}
	switch {
	case touched > 0 || open > 0:
		return broken(f, fmt.Sprintf("%d attempts were not refused; the canaries were touched %d times", open, touched))
	case cells == 0 || refused == 0 || served.Load() == 0 || failures.Load() > 0:
		return broken(f, "the attempts could not be made while S3 was served")
	case len(f.Missing) > 0:
		f.Outcome = NotEnforced
		f.Saw = fmt.Sprintf("All %d attempts in %s were refused, but %s of confinement cannot be enforced here.", refused, plural(cells, "cells"), plural(len(f.Missing), "measures"))
	default:
		f.Outcome = Kept
		f.Saw = fmt.Sprintf("All %d attempts in %s refused, canaries untouched, %d S3 requests served meanwhile.", refused, plural(cells, "cells"), served.Load())
	}
	return f, nil
}

// serveMeanwhile keeps S3 busy until ctx ends.
func (s *scratch) serveMeanwhile(ctx context.Context) (served, failures *atomic.Int64, ended chan struct{}) {
	served, failures, ended = new(atomic.Int64), new(atomic.Int64), make(chan struct{})
	go func() {
		defer close(ended)
		c, err := s.s3(s.e.o.S3)
		if err != nil {
			failures.Add(1)
			return
		}
		bucket := "meanwhile-" + randomHex(4)
		if err := c.MakeBucket(ctx, bucket, minio.MakeBucketOptions{}); err != nil {
			failures.Add(1)
			return
		}
		for ctx.Err() == nil {
			_, err := c.PutObject(ctx, bucket, "x", strings.NewReader("hello"), 5, minio.PutObjectOptions{})
			switch {
			case err == nil:
				served.Add(1)
			case ctx.Err() == nil:
				failures.Add(1)
			}
		}
	}()
	return served, failures, ended
}

// checkSockets looks from outside at every descriptor of every cell: there may be
// none of a network family, and the network namespace must be empty.
func checkSockets(ctx context.Context, e *env) (f Finding, err error) {
	f.Did = "Read every cell's descriptors and network namespace in /proc."
	pids, err := cellsOf(e.o.PID)
	if err != nil {
		return f, err
	}
	if len(pids) == 0 {
		return broken(f, "no cell runs below the zone's process")
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return f, errs.WrapKind(errs.Unavailable, "prove.checkSockets", err)
	}
	shared, bad := 0, 0
	for _, pid := range pids {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			return f, errs.WrapKind(errs.Unavailable, "prove.checkSockets", err)
		}
		inet, err := inetSockets(pid)
		if err != nil {
			return f, err
		}
		for _, line := range inet {
			bad++
			evidence(&f, "cell %d holds a network socket: %s", pid, line)
		}
		if ns == own {
			shared++
			evidence(&f, "cell %d shares the host's network namespace", pid)
			continue
		}
		interfaces, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
		if err != nil {
			return f, errs.WrapKind(errs.Unavailable, "prove.checkSockets", err)
		}
		routes, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/route", pid))
		if err != nil {
			return f, errs.WrapKind(errs.Unavailable, "prove.checkSockets", err)
		}
		if n := strings.Count(string(interfaces), ":"); n > 1 || strings.Count(strings.TrimSpace(string(routes)), "\n") > 0 {
			bad++
			evidence(&f, "cell %d has %d interfaces or a route", pid, n)
		} else {
			evidence(&f, "cell %d: own %s, no interface but a loopback that is down, no route, no network socket", pid, ns)
		}
	}
	switch {
	case bad > 0:
		return broken(f, fmt.Sprintf("%d network sockets, interfaces or routes in cells", bad))
	case shared > 0:
		f.Outcome, f.Saw = NotEnforced, fmt.Sprintf("No cell holds a network socket, but %d of %d share the host's network namespace (the pod is the sandbox).", shared, len(pids))
	default:
		f.Outcome, f.Saw = Kept, fmt.Sprintf("%s: each alone in an empty network namespace, no network socket, no route.", plural(len(pids), "cells"))
	}
	return f, nil
}
