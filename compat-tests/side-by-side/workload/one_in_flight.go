package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// oneInFlight runs producers that each wait for the acknowledgement of a record before they send the next.
func oneInFlight() (map[string]any, error) {
	var (
		group  sync.WaitGroup
		mutex  sync.Mutex
		values latencies
		sent   int
		failed error
	)
	clients := make([]*kgo.Client, *producers)
	for i := range clients {
		client, err := producer(kgo.MaxProduceRequestsInflightPerBroker(1))
		if err != nil {
			return nil, err
		}
		defer client.Close()
		clients[i] = client
	}
	ctx, cancel := context.WithTimeout(context.Background(), *warm+*counted+*limit)
	defer cancel()
	begin := time.Now()
	from := begin.Add(*warm)
	until := from.Add(*counted)
	for i, client := range clients {
		group.Add(1)
		go func() {
			defer group.Done()
			own := make(latencies, 0, 1<<14)
			value := payload()
			partition := int32(i % *partitions)
			all := 0
			for {
				begun := time.Now()
				if begun.After(until) {
					break
				}
				record := &kgo.Record{Value: value, Partition: partition}
				err := client.ProduceSync(ctx, record).FirstErr()
				acked := time.Now()
				if err != nil {
					mutex.Lock()
					failed = err
					mutex.Unlock()
					return
				}
				all++
				if acked.After(from) && !acked.After(until) {
					own = append(own, uint32(acked.Sub(begun).Microseconds()))
				}
			}
			mutex.Lock()
			values = append(values, own...)
			sent += all
			mutex.Unlock()
		}()
	}
	group.Wait()
	if failed != nil {
		return nil, failed
	}
	report := values.summary()
	report["sent"] = sent
	report["records"] = len(values)
	report["rate"] = float64(len(values)) / counted.Seconds()
	return report, nil
}
