package s3load

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

var selfPID = os.Getpid()

// Result is what was measured in one cell on one target.
type Result struct {
	Target    string    `json:"target"`
	Operation Operation `json:"operation"`
	Size      int       `json:"sizeBytes"`
	Clients   int       `json:"clients"`
	Mode      Mode      `json:"payload"`

	Operations   int     `json:"operations"`
	Seconds      float64 `json:"seconds"`
	OpsPerSecond float64 `json:"opsPerSecond"`
	MiBPerSecond float64 `json:"mibPerSecond"`
	// Latencies as the clients saw them, in milliseconds.
	P50 float64 `json:"p50Milliseconds"`
	P99 float64 `json:"p99Milliseconds"`
	// HasServer tells whether the server's processes could be measured.
	HasServer bool `json:"hasServer"`
	// ServerCPUPerOp is the CPU time of all the server's processes by operation.
	ServerCPUPerOp time.Duration `json:"serverCPUNanosecondsPerOp"`
	// PeakRSS is the sum of the processes' peaks in bytes; of this cell alone if PeakIsOfCell, else since they started.
	PeakRSS      int64 `json:"peakRSSBytes"`
	PeakIsOfCell bool  `json:"peakIsOfCell"`
	// DriverCPUPerOp is what this driver itself spent by operation, on the same machine.
	DriverCPUPerOp time.Duration `json:"driverCPUNanosecondsPerOp"`
}

func (r *Result) fill(times []time.Duration, bytes int64, elapsed, driver time.Duration) {
	slices.Sort(times)
	r.Operations = len(times)
	r.Seconds = elapsed.Seconds()
	r.OpsPerSecond = float64(len(times)) / elapsed.Seconds()
	r.MiBPerSecond = float64(bytes) / (1 << 20) / elapsed.Seconds()
	r.P50 = milliseconds(percentile(times, 50))
	r.P99 = milliseconds(percentile(times, 99))
	r.DriverCPUPerOp = driver
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percentile is the nearest-rank percentile of sorted values: the smallest one
// that at least p percent of all do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[(len(sorted)*p+99)/100-1]
}

// SizeName writes a size as people say it: 4KiB, 1MiB.
func SizeName(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprintf("%dB", n)
}

// WriteTable prints results as a Markdown table that also reads well in a terminal.
func WriteTable(w io.Writer, results []Result) error {
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 1, ' ', tabwriter.AlignRight|tabwriter.Debug)
	fmt.Fprintln(t, "\t target\t op\t size\t ops/s\t MiB/s\t p50 ms\t p99 ms\t server CPU ms/op\t peak RSS MiB\t driver CPU ms/op\t")
	fmt.Fprintln(t, "\t ---\t ---\t --:\t --:\t --:\t --:\t --:\t --:\t --:\t --:\t")
	for _, r := range results {
		size, cpu, rss := SizeName(r.Size), "not seen", "not seen"
		if r.Operation == List {
			size = "page"
		}
		if r.HasServer {
			cpu = fmt.Sprintf("%.2f", milliseconds(r.ServerCPUPerOp))
			rss = fmt.Sprintf("%.0f", float64(r.PeakRSS)/(1<<20))
			if !r.PeakIsOfCell {
				rss += " (all)"
			}
		}
		fmt.Fprintf(t, "\t %s\t %s\t %s\t %.0f\t %.1f\t %.2f\t %.2f\t %s\t %s\t %.2f\t\n",
			r.Target, r.Operation, size, r.OpsPerSecond, r.MiBPerSecond, r.P50, r.P99, cpu, rss, milliseconds(r.DriverCPUPerOp))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := io.WriteString(w, strings.TrimLeft(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

// Report is the JSON form of a run.
type Report struct {
	Started time.Time `json:"started"`
	// Machine describes where it ran: kernel, processors, memory.
	Machine map[string]string `json:"machine"`
	// Starts tells for each server that the driver started itself how long it took
	// to serve, and what it held when idle.
	Starts  []ServerStart `json:"starts,omitempty"`
	Results []Result      `json:"results"`
}

// ServerStart is a start of a server.
type ServerStart struct {
	Target       string  `json:"target"`
	ReadySeconds float64 `json:"readySeconds"`
	IdleRSS      int64   `json:"idleRSSBytes"`
	Processes    int     `json:"processes"`
}

// WriteJSON writes the report to a file.
func (r Report) WriteJSON(path string) error {
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(body, '\n'), 0o644)
}
