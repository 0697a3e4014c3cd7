package apiserver

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BenchmarkCreate creates custom resources through the whole server, HTTP
// included, on a real disk; -cpu 1,8 tells one client from eight.
func BenchmarkCreate(b *testing.B) {
	h := newHarness(b)
	h.namespace("p1")
	c := h.dynamic().Resource(widgets).Namespace("p1")
	var n atomic.Int64
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Create(bg, widget("p1", fmt.Sprintf("w%d", n.Add(1)), 1), metav1.CreateOptions{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkWatch is the time from a write to the event of a watch.
func BenchmarkWatch(b *testing.B) {
	h := newHarness(b)
	h.namespace("p1")
	c := h.dynamic().Resource(widgets).Namespace("p1")
	w, err := c.Watch(bg, metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Stop()
	var total time.Duration
	i := 0
	for b.Loop() {
		if _, err := c.Create(bg, widget("p1", fmt.Sprintf("w%d", i), 1), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		<-w.ResultChan()
		total += time.Since(begin)
		i++
	}
	b.ReportMetric(float64(total.Microseconds())/float64(i), "µs-after-answer")
}

// BenchmarkList lists 1,000 objects, decoded from the store: there is no watch cache.
func BenchmarkList(b *testing.B) {
	h := newHarness(b)
	h.namespace("p1")
	c := h.dynamic().Resource(widgets).Namespace("p1")
	for i := range 1000 {
		if _, err := c.Create(bg, widget("p1", fmt.Sprintf("w%d", i), 1), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if list, err := c.List(bg, metav1.ListOptions{}); err != nil || len(list.Items) != 1000 {
			b.Fatal(err)
		}
	}
}
