package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// soak keeps many clients with default settings at work for -counted: producers that share -rate and go round the
// partitions of their topic, and readers of what is new. The topics are called <topic>-0, <topic>-1, and so on.
func soak() (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *counted)
	defer cancel()
	var (
		group              sync.WaitGroup
		sent, failed, read atomic.Int64
	)
	for i := range *producers + *readers {
		own := fmt.Sprintf("%s-%d", *topic, i%*topics)
		options := []kgo.Opt{
			kgo.SeedBrokers(strings.Split(*brokers, ",")...),
			kgo.DefaultProduceTopic(own),
			kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		}
		if i >= *producers {
			options = append(options, kgo.ConsumeTopics(own), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
		}
		client, err := kgo.NewClient(options...)
		if err != nil {
			return nil, err
		}
		defer client.Close()
		group.Add(1)
		go func() {
			defer group.Done()
			if i < *producers {
				produceSteadily(ctx, client, *rate/float64(*producers), &sent, &failed)
			} else {
				readSteadily(ctx, client, &read)
			}
		}()
	}
	group.Wait()
	return map[string]any{"sent": sent.Load(), "failed": failed.Load(), "read": read.Load()}, nil
}

func produceSteadily(ctx context.Context, client *kgo.Client, rate float64, sent, failed *atomic.Int64) {
	value := payload()
	ticks := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			client.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
				if err == nil {
					sent.Add(1)
				} else if !errors.Is(err, context.DeadlineExceeded) {
					failed.Add(1)
				}
			})
		}
	}
}

func readSteadily(ctx context.Context, client *kgo.Client, read *atomic.Int64) {
	for ctx.Err() == nil {
		read.Add(int64(client.PollFetches(ctx).NumRecords()))
	}
}
