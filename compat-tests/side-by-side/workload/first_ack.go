package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// How often a broker that is not there yet is tried again.
const retryEvery = 2 * time.Millisecond

// firstAck waits for a broker that is just starting and returns when it has acknowledged one record. With
// -partitions 0 the topic exists already; else it is created first.
func firstAck() (map[string]any, error) {
	deadline := time.Now().Add(*limit)
	for {
		conn, err := net.DialTimeout("tcp", *brokers, time.Second)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(retryEvery)
	}
	listening := time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	client, err := producer(
		kgo.MetadataMinAge(10*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }),
		kgo.UnknownTopicRetries(-1),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if *partitions > 0 {
		for {
			answer, err := kadm.NewClient(client).CreateTopic(ctx, int32(*partitions), 1, nil, *topic)
			if err == nil {
				err = answer.Err
			}
			if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
				break
			}
			if ctx.Err() != nil || !retriable(err) {
				return nil, fmt.Errorf("create %s: %w", *topic, err)
			}
			time.Sleep(retryEvery)
		}
	}
	for {
		err := client.ProduceSync(ctx, &kgo.Record{Value: payload()}).FirstErr()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil, err
		}
		time.Sleep(retryEvery)
	}
	// By the wall clock, for whoever started the broker knows when that was.
	return map[string]any{
		"listening_unix": float64(listening.UnixMicro()) / 1e6,
		"acked_unix":     float64(time.Now().UnixMicro()) / 1e6,
	}, nil
}

// retriable errors are those of a broker that is still starting.
func retriable(err error) bool {
	var code *kerr.Error
	if errors.As(err, &code) {
		// While brokers are not registered yet there is nowhere to put a replica.
		return code.Retriable || errors.Is(err, kerr.InvalidReplicationFactor)
	}
	return true
}
