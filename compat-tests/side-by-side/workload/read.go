package main

import (
	"context"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// read catches up with a topic, one partition of it, from its start, over and over, for as long as -warm and -counted.
func read() (map[string]any, error) {
	start := map[string]map[int32]kgo.Offset{*topic: {0: kgo.NewOffset().AtStart()}}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(*brokers, ",")...),
		kgo.ConsumePartitions(start),
		kgo.FetchMaxWait(100*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	begin := time.Now()
	until := begin.Add(*warm + *counted)
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	read, passes := 0, 0
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil && ctx.Err() == nil {
			return nil, err
		}
		last, end := int64(-1), int64(0)
		fetches.EachPartition(func(partition kgo.FetchTopicPartition) {
			end = partition.HighWatermark
			for _, record := range partition.Records {
				read += len(record.Value)
				last = record.Offset
			}
		})
		if last >= 0 && last+1 >= end {
			passes++
			client.SetOffsets(map[string]map[int32]kgo.EpochOffset{*topic: {0: {Epoch: -1, Offset: 0}}})
		}
	}
	seconds := time.Since(begin).Seconds()
	return map[string]any{"mb_per_s": float64(read) / 1e6 / seconds, "passes": passes}, nil
}
