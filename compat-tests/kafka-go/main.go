// segmentio/kafka-go: its Writer, Reader, ConsumerGroup (old, fixed protocol versions) and Client (negotiated ones).
package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"stonelog/compat"
)

var codecs = []struct {
	name  string
	codec kafka.Compression
}{
	{"none", 0}, {"gzip", kafka.Gzip}, {"snappy", kafka.Snappy}, {"lz4", kafka.Lz4}, {"zstd", kafka.Zstd},
}

func main() {
	suite := compat.NewSuite("kafka-go", "github.com/segmentio/kafka-go")
	// What it knows of the cluster is looked up again this often only, whatever the brokers answer; its default is 6 s.
	transport := &kafka.Transport{MetadataTTL: 200 * time.Millisecond}
	client := &kafka.Client{Addr: kafka.TCP(suite.Brokers...), Timeout: 20 * time.Second, Transport: transport}
	baseMs := compat.BaseTimestamp()
	sent := map[string][]compat.Record{}
	group, groupTopic, resumeTopic := suite.Name("group"), suite.Name("grouped"), suite.Name("resume")

	partitionsOf := func(ctx context.Context, topic string) int {
		metadata := compat.Get(client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}}))
		if metadata.Topics[0].Error != nil {
			return 0
		}
		return len(metadata.Topics[0].Partitions)
	}

	suite.Step("create_topic", func(ctx context.Context) {
		sizes := map[string]int{groupTopic: 4, resumeTopic: 1}
		for _, codec := range codecs {
			sizes[suite.Name(codec.name)] = compat.Partitions
		}
		request := &kafka.CreateTopicsRequest{}
		for topic, partitions := range sizes {
			request.Topics = append(
				request.Topics,
				kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: suite.Nodes,
					ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "-1"}}},
			)
		}
		for _, problem := range compat.Get(client.CreateTopics(ctx, request)).Errors {
			compat.Must(problem)
		}
		for topic, partitions := range sizes {
			compat.Until("the topic is known", func() bool { return partitionsOf(ctx, topic) == partitions })
		}
	})

	for index, codec := range codecs {
		sent[codec.name] = compat.RecordSet(int64(index), baseMs, compat.Limits{})
		suite.Step("produce."+codec.name, func(ctx context.Context) {
			produce(ctx, suite.Brokers, suite.Name(codec.name), codec.codec, sent[codec.name])
		})
		if suite.Failed("produce."+codec.name, "consume."+codec.name) {
			continue
		}
		suite.Step("consume."+codec.name, func(ctx context.Context) {
			received := consume(ctx, suite.Brokers, suite.Name(codec.name), sent[codec.name])
			compat.Compare(compat.FoldEmpty(sent[codec.name]), compat.FoldEmpty(received))
		})
	}
	suite.Lacks("empty_value", "the reader returns null for empty")
	suite.Lacks("idempotent", "the writer never asks for a producer id")

	if !suite.Failed("produce.none", "offsets_by_time") {
		suite.Step("offsets_by_time", func(ctx context.Context) {
			topic, records := suite.Name("none"), compat.OfPartition(sent["none"], 0)
			answer := compat.Get(
				client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
					topic: {
						kafka.FirstOffsetOf(0),
						kafka.LastOffsetOf(0),
						kafka.TimeOffsetOf(0, time.UnixMilli(records[5].TimestampMs)),
					},
				}}),
			)
			found := answer.Topics[topic][0]
			compat.Must(found.Error)
			compat.Check(found.FirstOffset == 0 && found.LastOffset == int64(len(records)), "%+v", found)
			at, there := found.Offsets[5]
			compat.Check(there && at.UnixMilli() == records[5].TimestampMs, "%+v", found)
		})
	}

	suite.Step("group.rebalance", func(context.Context) {
		one, two := join(suite, groupTopic), join(suite, groupTopic)
		defer one.leave()
		defer two.leave()
		compat.Until("both members own partitions", func() bool {
			first, second := one.owned.Load(), two.owned.Load()
			return first > 0 && second > 0 && first+second == 4
		})
		two.leave()
		compat.Until("the remaining member owns all four", func() bool { return one.owned.Load() == 4 })
	})

	suite.Step("group.resume", func(ctx context.Context) {
		var records []compat.Record
		for index := range 100 {
			records = append(
				records,
				compat.Record{Value: fmt.Appendf(nil, "%d", index), TimestampMs: baseMs + int64(index)},
			)
		}
		produce(ctx, suite.Brokers, resumeTopic, 0, records)
		reader := func() *kafka.Reader {
			return kafka.NewReader(
				kafka.ReaderConfig{Brokers: suite.Brokers, GroupID: group, Topic: resumeTopic,
					StartOffset: kafka.FirstOffset, MaxWait: 200 * time.Millisecond, SessionTimeout: 10 * time.Second,
					HeartbeatInterval: 300 * time.Millisecond, JoinGroupBackoff: 200 * time.Millisecond},
			)
		}
		first := reader()
		var last kafka.Message
		for range 40 {
			last = compat.Get(first.FetchMessage(ctx))
		}
		compat.Must(first.CommitMessages(ctx, last))
		compat.Must(first.Close())
		second := reader()
		defer second.Close()
		for index := 40; index < 100; index++ {
			last = compat.Get(second.FetchMessage(ctx))
			compat.Check(string(last.Value) == fmt.Sprint(index), "%q where %d should be", last.Value, index)
		}
		compat.Must(second.CommitMessages(ctx, last))
		fetched := compat.Get(
			client.OffsetFetch(
				ctx,
				&kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{resumeTopic: {0}}},
			),
		)
		compat.Must(fetched.Error)
		compat.Check(fetched.Topics[resumeTopic][0].CommittedOffset == 100, "%+v", fetched.Topics)
		suite.Step("describe.group", func(ctx context.Context) {
			request := &kafka.DescribeGroupsRequest{GroupIDs: []string{group}}
			described := compat.Get(client.DescribeGroups(ctx, request)).Groups[0]
			compat.Must(described.Error)
			compat.Check(described.GroupState == "Stable" && len(described.Members) == 1, "%+v", described)
			listed := compat.Get(client.ListGroups(ctx, &kafka.ListGroupsRequest{}))
			compat.Must(listed.Error)
			found := false
			for _, entry := range listed.Groups {
				found = found || entry.GroupID == group
			}
			compat.Check(found, "not listed")
		})
	})

	suite.Step("group.admin_offsets", func(ctx context.Context) {
		deleted := compat.Get(
			client.OffsetDelete(
				ctx,
				&kafka.OffsetDeleteRequest{GroupID: group, Topics: map[string][]int{resumeTopic: {0}}},
			),
		)
		compat.Must(deleted.Error)
		compat.Must(deleted.Topics[resumeTopic][0].Error)
		fetched := compat.Get(
			client.OffsetFetch(
				ctx,
				&kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{resumeTopic: {0}}},
			),
		)
		compat.Check(fetched.Topics[resumeTopic][0].CommittedOffset == -1, "%+v", fetched.Topics)
		// The last offset and the last member are gone, so the group may be gone too.
		request := &kafka.DeleteGroupsRequest{GroupIDs: []string{group}}
		for _, problem := range compat.Get(client.DeleteGroups(ctx, request)).Errors {
			compat.Check(problem == nil || errors.Is(problem, kafka.GroupIdNotFound), "%v", problem)
		}
	})

	suite.Step("describe.topic", func(ctx context.Context) {
		compat.Whole()
		metadata := compat.Get(client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{suite.Name("none")}}))
		compat.Check(metadata.ClusterID != "" && len(metadata.Brokers) == suite.Nodes, "%+v", metadata)
		compat.Check(len(metadata.Topics[0].Partitions) == compat.Partitions, "%+v", metadata.Topics[0])
		connection := compat.Get(kafka.DialContext(ctx, "tcp", suite.Brokers[0]))
		defer connection.Close()
		partitions := compat.Get(connection.ReadPartitions(suite.Name("none")))
		compat.Check(len(partitions) == compat.Partitions, "%+v", partitions)
		versions := compat.Get(connection.ApiVersions())
		compat.Check(len(versions) > 20, "%d keys advertised", len(versions))
	})

	suite.Step("describe.configs", func(ctx context.Context) {
		topic := suite.Name("none")
		value := func(key string) string {
			resource := kafka.DescribeConfigRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}
			described := compat.Get(client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
				IncludeSynonyms: true, IncludeDocumentation: true,
				Resources: []kafka.DescribeConfigRequestResource{resource},
			})).Resources[0]
			compat.Must(described.Error)
			for _, entry := range described.ConfigEntries {
				if entry.ConfigName == key {
					return entry.ConfigValue
				}
			}
			return "absent"
		}
		compat.Check(value("retention.ms") == "-1", "retention.ms %s", value("retention.ms"))
		compat.Check(value("max.message.bytes") == "1048588", "max.message.bytes %s", value("max.message.bytes"))
		answer := compat.Get(client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
			Resources: []kafka.IncrementalAlterConfigsRequestResource{
				{
					ResourceType: kafka.ResourceTypeTopic,
					ResourceName: topic,
					Configs: []kafka.IncrementalAlterConfigsRequestConfig{
						{Name: "segment.bytes", Value: "1048576", ConfigOperation: kafka.ConfigOperationSet},
					},
				},
			},
		}))
		compat.Must(answer.Resources[0].Error)
		compat.Until("the altered value", func() bool { return value("segment.bytes") == "1048576" })
		compat.Check(value("retention.ms") == "-1", "the change reset another key")
	})

	suite.Step("create_partitions", func(ctx context.Context) {
		for _, problem := range compat.Get(client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
			Topics: []kafka.TopicPartitionsConfig{{Name: suite.Name("gzip"), Count: compat.Partitions + 2}}})).Errors {
			compat.Must(problem)
		}
		compat.Until(
			"the added partitions",
			func() bool { return partitionsOf(ctx, suite.Name("gzip")) == compat.Partitions+2 },
		)
	})

	suite.Step("delete_topic", func(ctx context.Context) {
		topics := []string{groupTopic, resumeTopic}
		for _, codec := range codecs {
			topics = append(topics, suite.Name(codec.name))
		}
		answer := compat.Get(client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: topics}))
		for _, problem := range answer.Errors {
			compat.Must(problem)
		}
		for _, topic := range topics {
			compat.Until("the topic is gone", func() bool { return partitionsOf(ctx, topic) == 0 })
		}
	})
	suite.Finish()
}

func produce(ctx context.Context, brokers []string, topic string, codec kafka.Compression, records []compat.Record) {
	writer := &kafka.Writer{
		Addr:         kafka.TCP(brokers...),
		Topic:        topic,
		RequiredAcks: kafka.RequireAll,
		Compression:  codec,
		BatchTimeout: 20 * time.Millisecond,
		BatchSize:    1000,
		WriteTimeout: 20 * time.Second,
		// Of a second each, as long as a broker may be away.
		MaxAttempts: 30,
		Balancer:    kafka.BalancerFunc(func(message kafka.Message, _ ...int) int { return message.WriterData.(int) }),
	}
	defer writer.Close()
	var batch []kafka.Message
	for _, record := range records {
		message := kafka.Message{
			Key:        record.Key,
			Value:      record.Value,
			Time:       time.UnixMilli(record.TimestampMs),
			WriterData: int(record.Partition),
		}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, kafka.Header{Key: header.Name, Value: header.Value})
		}
		batch = append(batch, message)
	}
	compat.Must(writer.WriteMessages(ctx, batch...))
}

func consume(ctx context.Context, brokers []string, topic string, sent []compat.Record) []compat.Record {
	var found []compat.Record
	for partition := range compat.Partitions {
		reader := kafka.NewReader(kafka.ReaderConfig{Brokers: brokers, Topic: topic, Partition: partition,
			MaxBytes: 10 << 20, MaxWait: 200 * time.Millisecond})
		for range compat.OfPartition(sent, int32(partition)) {
			message := compat.Get(reader.ReadMessage(ctx))
			record := compat.Record{
				Partition:   int32(message.Partition),
				Key:         message.Key,
				Value:       message.Value,
				TimestampMs: message.Time.UnixMilli(),
			}
			for _, header := range message.Headers {
				record.Headers = append(record.Headers, compat.Header{Name: header.Key, Value: header.Value})
			}
			found = append(found, record)
		}
		lag := compat.Get(reader.ReadLag(ctx))
		compat.Check(lag == 0, "partition %d: %d records too many", partition, lag)
		compat.Must(reader.Close())
	}
	return found
}

// member is one member of a group that follows its assignment from generation to generation.
type member struct {
	group  *kafka.ConsumerGroup
	cancel context.CancelFunc
	done   chan struct{}
	owned  atomic.Int64
}

func join(suite *compat.Suite, topic string) *member {
	group := compat.Get(
		kafka.NewConsumerGroup(
			kafka.ConsumerGroupConfig{
				ID:                suite.Name("rebalance"),
				Brokers:           suite.Brokers,
				Topics:            []string{topic},
				HeartbeatInterval: 300 * time.Millisecond,
				SessionTimeout:    10 * time.Second,
				RebalanceTimeout:  10 * time.Second,
				JoinGroupBackoff:  200 * time.Millisecond,
				StartOffset:       kafka.FirstOffset,
			},
		),
	)
	ctx, cancel := context.WithCancel(context.Background())
	one := &member{group: group, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(one.done)
		for {
			generation, problem := group.Next(ctx)
			if errors.Is(problem, context.Canceled) || errors.Is(problem, kafka.ErrGroupClosed) {
				return
			}
			if problem != nil {
				continue
			}
			one.owned.Store(int64(len(generation.Assignments[topic])))
			generation.Start(func(generationContext context.Context) {
				<-generationContext.Done()
				one.owned.Store(0)
			})
		}
	}()
	return one
}

func (one *member) leave() {
	one.cancel()
	<-one.done
	one.group.Close()
}
