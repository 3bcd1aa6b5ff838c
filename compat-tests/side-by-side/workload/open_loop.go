package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// openLoop sends at a fixed rate, whatever the answers do. A latency runs from the moment a record was due, not from
// the moment it could be sent: waiting behind a slow answer is part of it.
func openLoop() (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *warm+*counted+*limit)
	defer cancel()
	clients := make([]*kgo.Client, *connection)
	for i := range clients {
		client, err := producer(kgo.MaxBufferedRecords(1 << 20))
		if err != nil {
			return nil, err
		}
		defer client.Close()
		clients[i] = client
	}
	var (
		mutex  sync.Mutex
		values latencies
		late   latencies
		failed error
		group  sync.WaitGroup
	)
	value := payload()
	interval := time.Duration(float64(time.Second) / *rate)
	total := int((*warm + *counted) / interval)
	begin := time.Now()
	from := begin.Add(*warm)
	for i := range total {
		due := begin.Add(time.Duration(i) * interval)
		if ahead := time.Until(due); ahead > 0 {
			time.Sleep(ahead)
		}
		if due.After(from) {
			late = append(late, uint32(time.Since(due).Microseconds()))
		}
		group.Add(1)
		record := &kgo.Record{Value: value, Partition: int32(i % *partitions)}
		clients[i%len(clients)].Produce(ctx, record, func(_ *kgo.Record, err error) {
			took := time.Since(due)
			mutex.Lock()
			if err != nil {
				failed = err
			} else if due.After(from) {
				values = append(values, uint32(took.Microseconds()))
			}
			mutex.Unlock()
			group.Done()
		})
	}
	group.Wait()
	if failed != nil {
		return nil, failed
	}
	report := values.summary()
	report["sent"] = total
	report["records"] = len(values)
	report["rate"] = float64(len(values)) / counted.Seconds()
	// How late the generator itself was: above a millisecond it, not the broker, is being measured.
	report["generator_late_p99_us"] = late.summary()["p99_us"]
	return report, nil
}
