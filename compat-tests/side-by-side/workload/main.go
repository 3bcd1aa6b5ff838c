// The side-by-side benchmark's own client work, on an unmodified franz-go: topics, many producers with one record in
// flight each, a load at a fixed rate without coordinated omission, a reader that catches up over and over, and the time
// to the first acknowledgement, and many clients for a long time.
//
// It prints one line of JSON and judges nothing. The same binary with the same flags runs against every broker.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	brokers    = flag.String("brokers", "127.0.0.1:9092", "where to start from")
	topic      = flag.String("topic", "", "the topic")
	partitions = flag.Int("partitions", 1, "its partitions")
	replicas   = flag.Int("replicas", 1, "create: its replicas")
	configs    = flag.String("configs", "", "create: key=value,key=value")
	acks       = flag.String("acks", "all", "all or 1")
	bytes      = flag.Int("bytes", 1024, "bytes of a record's value")
	producers  = flag.Int("producers", 1, "one-in-flight, soak: producers, each with its own connection")
	readers    = flag.Int("readers", 1, "soak: readers, each with its own connection")
	topics     = flag.Int("topics", 1, "soak: topics the clients are spread over")
	connection = flag.Int("connections", 8, "open-loop: clients the records are spread over")
	rate       = flag.Float64("rate", 1000, "open-loop, soak: records per second")
	warm       = flag.Duration("warm", 2*time.Second, "time that is not counted")
	counted    = flag.Duration("counted", 4*time.Second, "time that is counted")
	limit      = flag.Duration("limit", time.Minute, "longest time to wait for an answer")
)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("which work?"))
	}
	work := os.Args[1]
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		fail(err)
	}
	var (
		report map[string]any
		err    error
	)
	switch work {
	case "create":
		report, err = create()
	case "delete":
		report, err = remove()
	case "one-in-flight":
		report, err = oneInFlight()
	case "open-loop":
		report, err = openLoop()
	case "read":
		report, err = read()
	case "first-ack":
		report, err = firstAck()
	case "whole":
		report, err = whole()
	case "soak":
		report, err = soak()
	default:
		err = fmt.Errorf("no work %q", work)
	}
	if err != nil {
		fail(err)
	}
	line, err := json.Marshal(report)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(line))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// producer is a client that sends a record as soon as it has one, without batching, compression or idempotence.
func producer(options ...kgo.Opt) (*kgo.Client, error) {
	all := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(*brokers, ",")...),
		kgo.DefaultProduceTopic(*topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(0),
		kgo.DisableIdempotentWrite(),
	}
	if *acks == "1" {
		all = append(all, kgo.RequiredAcks(kgo.LeaderAck()))
	}
	return kgo.NewClient(append(all, options...)...)
}

// payload is incompressible, so that nobody gains by what it is.
func payload() []byte {
	value := make([]byte, *bytes)
	_, _ = rand.Read(value)
	return value
}

// create waits for the broker, makes the topic, and returns when every partition of it has a leader.
func create() (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	begin := time.Now()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(*brokers, ",")...), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	admin.SetTimeoutMillis(int32(limit.Milliseconds()))
	settings := map[string]*string{}
	for _, setting := range strings.Split(*configs, ",") {
		if key, value, found := strings.Cut(setting, "="); found {
			settings[key] = &value
		}
	}
	for {
		answer, err := admin.CreateTopic(ctx, int32(*partitions), int16(*replicas), settings, *topic)
		if err == nil {
			err = answer.Err
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil || !retriable(err) {
			return nil, fmt.Errorf("create %s: %w", *topic, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for {
		details, err := admin.ListTopics(ctx, *topic)
		led := 0
		if err == nil {
			for _, partition := range details[*topic].Partitions {
				if partition.Leader >= 0 && partition.Err == nil {
					led++
				}
			}
		}
		if led == *partitions {
			return map[string]any{"seconds": time.Since(begin).Seconds()}, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %d of %d partitions have a leader", *topic, led, *partitions)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func remove() (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(*brokers, ",")...))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	answer, err := kadm.NewClient(client).DeleteTopic(ctx, *topic)
	if err == nil {
		err = answer.Err
	}
	return map[string]any{}, err
}
