// franz-go: the newest protocol versions, every codec, groups, offsets, idempotence and kadm.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"stonelog/compat"
)

var codecs = []struct {
	name  string
	codec kgo.CompressionCodec
}{
	{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()},
	{"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()},
}

func main() {
	suite := compat.NewSuite("franz-go", "github.com/twmb/franz-go")
	client := func(options ...kgo.Opt) *kgo.Client {
		return compat.Get(kgo.NewClient(append([]kgo.Opt{
			kgo.SeedBrokers(suite.Brokers...),
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerBatchMaxBytes(1_048_588),
			kgo.ProducerLinger(20 * time.Millisecond),
			// A broker that dies may take a connection and end it: that is no want of SASL, which the client takes it for.
			kgo.AlwaysRetryEOF(),
			kgo.MetadataMinAge(100 * time.Millisecond),
			kgo.FetchMaxWait(200 * time.Millisecond),
			kgo.SessionTimeout(10 * time.Second),
			kgo.HeartbeatInterval(300 * time.Millisecond),
			kgo.RetryTimeout(20 * time.Second),
		}, options...)...))
	}
	plain := client()
	defer plain.Close()
	admin := kadm.NewClient(plain)
	baseMs := compat.BaseTimestamp()
	sent := map[string][]compat.Record{}
	group, groupTopic, resumeTopic := suite.Name("group"), suite.Name("grouped"), suite.Name("resume")
	idempotentTopic := suite.Name("idempotent")

	suite.Step("create_topic", func(ctx context.Context) {
		forever := "-1"
		create := func(partitions int32, topics ...string) {
			answers := compat.Get(
				admin.CreateTopics(ctx, partitions, int16(suite.Nodes), map[string]*string{"retention.ms": &forever}, topics...),
			)
			compat.Must(answers.Error())
		}
		for _, codec := range codecs {
			create(compat.Partitions, suite.Name(codec.name))
		}
		create(compat.Partitions, idempotentTopic)
		create(4, groupTopic)
		create(1, resumeTopic)
	})

	for index, codec := range codecs {
		sent[codec.name] = compat.RecordSet(int64(index), baseMs, compat.Limits{})
		suite.Step("produce."+codec.name, func(ctx context.Context) {
			options := []kgo.Opt{kgo.ProducerBatchCompression(codec.codec)}
			if suite.Nodes == 1 {
				options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
			}
			producer := client(options...)
			defer producer.Close()
			produce(ctx, producer, suite.Name(codec.name), sent[codec.name])
		})
		if suite.Failed("produce."+codec.name, "consume."+codec.name) {
			continue
		}
		suite.Step("consume."+codec.name, func(ctx context.Context) {
			compat.Compare(sent[codec.name], consume(ctx, client, suite.Name(codec.name), len(sent[codec.name])))
		})
	}

	if !suite.Failed("produce.none", "offsets_by_time") {
		suite.Step("offsets_by_time", func(ctx context.Context) {
			topic, records := suite.Name("none"), compat.OfPartition(sent["none"], 0)
			expect := func(what string, listed kadm.ListedOffsets, problem error, offset int) {
				compat.Must(problem)
				found, _ := listed.Lookup(topic, 0)
				compat.Must(found.Err)
				compat.Check(found.Offset == int64(offset), "%s: offset %d, not %d", what, found.Offset, offset)
			}
			start, problem := admin.ListStartOffsets(ctx, topic)
			expect("start", start, problem, 0)
			end, problem := admin.ListEndOffsets(ctx, topic)
			expect("end", end, problem, len(records))
			at, problem := admin.ListOffsetsAfterMilli(ctx, records[5].TimestampMs, topic)
			expect("at a timestamp", at, problem, 5)
			before, problem := admin.ListOffsetsAfterMilli(ctx, records[5].TimestampMs-1, topic)
			expect("before a timestamp", before, problem, 5)
			newest, problem := admin.ListMaxTimestampOffsets(ctx, topic)
			expect("newest timestamp", newest, problem, len(records)-1)
			committed, problem := admin.ListCommittedOffsets(ctx, topic)
			expect("last stable", committed, problem, len(records))
		})
	}

	suite.Step("idempotent", func(ctx context.Context) {
		records := compat.RecordSet(99, baseMs, compat.Limits{})
		producer := client()
		defer producer.Close()
		produce(ctx, producer, idempotentTopic, records)
		id, _, problem := producer.ProducerID(ctx)
		compat.Must(problem)
		compat.Check(id >= 0, "producer id %d", id)
		compat.Compare(records, consume(ctx, client, idempotentTopic, len(records)))
	})

	rebalance := func(name string, balancer kgo.GroupBalancer) {
		suite.Step(name, func(ctx context.Context) {
			one, two := newMember(
				client,
				suite.Name(name),
				groupTopic,
				balancer,
			), newMember(
				client,
				suite.Name(name),
				groupTopic,
				balancer,
			)
			defer one.client.Close()
			defer two.client.Close()
			compat.Until("both members own partitions", func() bool {
				first, second := one.owned(ctx), two.owned(ctx)
				return first > 0 && second > 0 && first+second == 4
			})
			two.client.Close()
			compat.Until("the remaining member owns all four", func() bool { return one.owned(ctx) == 4 })
		})
	}
	rebalance("group.rebalance", kgo.RangeBalancer())
	rebalance("group.rebalance_cooperative", kgo.CooperativeStickyBalancer())

	suite.Step("group.resume", func(ctx context.Context) {
		var records []compat.Record
		for index := range 100 {
			records = append(
				records,
				compat.Record{Value: fmt.Appendf(nil, "%d", index), TimestampMs: baseMs + int64(index)},
			)
		}
		produce(ctx, plain, resumeTopic, records)
		first := newMember(client, group, resumeTopic, kgo.RangeBalancer())
		defer first.client.Close()
		var seen []*kgo.Record
		compat.Until("40 records", func() bool {
			seen = append(seen, first.poll(ctx, 40-len(seen))...)
			return len(seen) >= 40
		})
		compat.Must(first.client.CommitRecords(ctx, seen...))
		first.client.Close()
		second := newMember(client, group, resumeTopic, kgo.RangeBalancer())
		defer second.client.Close()
		var rest []*kgo.Record
		compat.Until("60 records", func() bool {
			rest = append(rest, second.poll(ctx, 100)...)
			return len(rest) >= 60
		})
		for index, record := range rest {
			compat.Check(
				string(record.Value) == fmt.Sprint(index+40),
				"record %d after resuming is %q",
				index,
				record.Value,
			)
		}
		compat.Must(second.client.CommitRecords(ctx, rest...))
		offsets := asked(func() (kadm.OffsetResponses, error) { return admin.FetchOffsets(ctx, group) })
		committed, _ := offsets.Lookup(resumeTopic, 0)
		compat.Check(committed.At == 100, "committed %d", committed.At)
		suite.Step("describe.group", func(ctx context.Context) {
			described := asked(func() (kadm.DescribedGroups, error) { return admin.DescribeGroups(ctx, group) })[group]
			compat.Must(described.Err)
			compat.Check(
				described.State == "Stable" && len(described.Members) == 1,
				"%s, %d members",
				described.State,
				len(described.Members),
			)
			listed := asked(func() (kadm.ListedGroups, error) { return admin.ListGroups(ctx, "Stable") })
			_, there := listed[group]
			compat.Check(there, "not listed as Stable")
			lag := asked(func() (kadm.DescribedGroupLags, error) { return admin.Lag(ctx, group) })
			compat.Check(lag[group].Lag.Total() == 0, "lag %d", lag[group].Lag.Total())
		})
	})

	suite.Step("group.admin_offsets", func(ctx context.Context) {
		offsets := kadm.Offsets{}
		offsets.AddOffset(resumeTopic, 0, 7, -1)
		answers := compat.Get(admin.CommitOffsets(ctx, group, offsets))
		compat.Must(answers.Error())
		fetched := asked(func() (kadm.OffsetResponses, error) { return admin.FetchOffsets(ctx, group) })
		committed, _ := fetched.Lookup(resumeTopic, 0)
		compat.Check(committed.At == 7, "committed %d", committed.At)
		set := kadm.TopicsSet{}
		set.Add(resumeTopic, 0)
		compat.Must(compat.Get(admin.DeleteOffsets(ctx, group, set)).Error())
		left := asked(func() (kadm.OffsetResponses, error) { return admin.FetchOffsets(ctx, group) })
		_, still := left.Lookup(resumeTopic, 0)
		compat.Check(!still, "the offset is still there after OffsetDelete")
		answer, problem := admin.DeleteGroup(ctx, group)
		compat.Must(problem)
		compat.Must(answer.Err)
	})

	suite.Step("describe.topic", func(ctx context.Context) {
		topics := compat.Get(admin.ListTopics(ctx, suite.Name("none")))
		detail := topics[suite.Name("none")]
		compat.Must(detail.Err)
		compat.Check(len(detail.Partitions) == compat.Partitions && detail.ID != kadm.TopicID{}, "%+v", detail)
		compat.Whole()
		compat.Until("every broker", func() bool {
			// Brokers alone are never asked for anew, only with topics.
			compat.Must(compat.Get(admin.ListTopics(ctx, suite.Name("none")))[suite.Name("none")].Err)
			metadata := compat.Get(admin.BrokerMetadata(ctx))
			return len(metadata.Brokers) == suite.Nodes && metadata.Cluster != ""
		})
		for _, directories := range compat.Get(admin.DescribeAllLogDirs(ctx, nil)) {
			compat.Must(directories.Error())
		}
	})

	suite.Step("describe.configs", func(ctx context.Context) {
		topic := suite.Name("none")
		value := func(key string) string {
			described := compat.Get(compat.Get(admin.DescribeTopicConfigs(ctx, topic)).On(topic, nil))
			compat.Must(described.Err)
			for _, entry := range described.Configs {
				if entry.Key == key {
					return entry.MaybeValue()
				}
			}
			return "absent"
		}
		compat.Check(value("retention.ms") == "-1", "retention.ms %s", value("retention.ms"))
		compat.Check(value("max.message.bytes") == "1048588", "max.message.bytes %s", value("max.message.bytes"))
		size := "1048576"
		answers := compat.Get(
			admin.AlterTopicConfigs(
				ctx,
				[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.bytes", Value: &size}},
				topic,
			),
		)
		for _, answer := range answers {
			compat.Must(answer.Err)
		}
		compat.Until("the altered value", func() bool { return value("segment.bytes") == size })
		compat.Check(value("retention.ms") == "-1", "the change reset another key")
		brokers := compat.Get(admin.ListBrokers(ctx))
		answer := compat.Get(admin.DescribeBrokerConfigs(ctx, brokers.NodeIDs()...))
		compat.Check(
			len(answer) == suite.Nodes && answer[0].Err == nil && len(answer[0].Configs) > 50,
			"broker configs: %d",
			len(answer[0].Configs),
		)
	})

	suite.Step("delete_records", func(ctx context.Context) {
		offsets := kadm.Offsets{}
		offsets.AddOffset(suite.Name("none"), 0, 3, -1)
		answers := compat.Get(admin.DeleteRecords(ctx, offsets))
		answer, _ := answers.Lookup(suite.Name("none"), 0)
		compat.Must(answer.Err)
		compat.Check(answer.LowWatermark == 3, "low watermark %d", answer.LowWatermark)
	})

	suite.Step("create_partitions", func(ctx context.Context) {
		compat.Must(compat.Get(admin.CreatePartitions(ctx, 2, suite.Name("gzip"))).Error())
		compat.Until("the added partitions", func() bool {
			topics := compat.Get(admin.ListTopics(ctx, suite.Name("gzip")))
			return len(topics[suite.Name("gzip")].Partitions) == compat.Partitions+2
		})
	})

	suite.Step("delete_topic", func(ctx context.Context) {
		topics := []string{idempotentTopic, groupTopic, resumeTopic}
		for _, codec := range codecs {
			topics = append(topics, suite.Name(codec.name))
		}
		compat.Must(compat.Get(admin.DeleteTopics(ctx, topics...)).Error())
		compat.Until("the topics are gone", func() bool {
			left := compat.Get(admin.ListTopics(ctx))
			for _, topic := range topics {
				if left.Has(topic) {
					return false
				}
			}
			return true
		})
	})
	suite.Finish()
}

// asked is Get for what any broker may be asked. That a broker is gone is seen by the client when it uses the connection
// it has to it, and it does not look for a group's coordinator, or ask every broker, a second time then.
func asked[T any](ask func() (T, error)) (answer T) {
	compat.Until("a broker that answers", func() bool {
		var problem error
		answer, problem = ask()
		var shards *kadm.ShardErrors
		if errors.As(problem, &shards) {
			problem = shards.Errs[0].Err
		}
		var lost *net.OpError
		if errors.Is(problem, io.EOF) || errors.As(problem, &lost) {
			return false
		}
		compat.Must(problem)
		return true
	})
	return answer
}

func produce(ctx context.Context, producer *kgo.Client, topic string, records []compat.Record) {
	var batch []*kgo.Record
	for _, record := range records {
		one := &kgo.Record{Topic: topic, Partition: record.Partition, Key: record.Key, Value: record.Value,
			Timestamp: time.UnixMilli(record.TimestampMs)}
		for _, header := range record.Headers {
			one.Headers = append(one.Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		batch = append(batch, one)
	}
	for _, result := range producer.ProduceSync(ctx, batch...) {
		compat.Must(result.Err)
		compat.Check(result.Record.Offset >= 0, "offset %d", result.Record.Offset)
	}
}

func consume(ctx context.Context, client func(...kgo.Opt) *kgo.Client, topic string, count int) []compat.Record {
	offsets := map[int32]kgo.Offset{}
	for partition := range int32(compat.Partitions) {
		offsets[partition] = kgo.NewOffset().AtStart()
	}
	consumer := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))
	defer consumer.Close()
	var found []compat.Record
	compat.Until(fmt.Sprintf("%d records", count), func() bool {
		for _, record := range poll(ctx, consumer, 1000) {
			one := compat.Record{
				Partition:   record.Partition,
				Key:         record.Key,
				Value:       record.Value,
				TimestampMs: record.Timestamp.UnixMilli(),
			}
			for _, header := range record.Headers {
				one.Headers = append(one.Headers, compat.Header{Name: header.Key, Value: header.Value})
			}
			found = append(found, one)
		}
		return len(found) >= count
	})
	return found
}

// poll waits for at most a short time.
func poll(ctx context.Context, consumer *kgo.Client, limit int) []*kgo.Record {
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	fetches := consumer.PollRecords(short, limit)
	for _, problem := range fetches.Errors() {
		if problem.Err != context.DeadlineExceeded {
			compat.Must(problem.Err)
		}
	}
	return fetches.Records()
}

// member is one consumer of a group that follows its own assignment.
type member struct {
	client *kgo.Client
	events chan int
	count  int
}

func newMember(client func(...kgo.Opt) *kgo.Client, group, topic string, balancer kgo.GroupBalancer) *member {
	one := &member{events: make(chan int, 1000)}
	change := func(sign int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			one.events <- sign * len(partitions[topic])
		}
	}
	one.client = client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.Balancers(balancer),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(change(1)), kgo.OnPartitionsRevoked(change(-1)), kgo.OnPartitionsLost(change(-1)))
	return one
}

func (one *member) poll(ctx context.Context, limit int) []*kgo.Record {
	return poll(ctx, one.client, limit)
}

// owned polls once and says how many partitions the member has now.
func (one *member) owned(ctx context.Context) int {
	one.poll(ctx, 100)
	for {
		select {
		case change := <-one.events:
			one.count += change
		default:
			return one.count
		}
	}
}
