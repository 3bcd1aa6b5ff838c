// sarama: every codec, groups, offsets, idempotence and the cluster admin, at its default protocol version.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"stonelog/compat"
)

var codecs = []struct {
	name  string
	codec sarama.CompressionCodec
}{
	{"none", sarama.CompressionNone}, {"gzip", sarama.CompressionGZIP}, {"snappy", sarama.CompressionSnappy},
	{"lz4", sarama.CompressionLZ4}, {"zstd", sarama.CompressionZSTD},
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.ClientID = "compat"
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Flush.Frequency = 20 * time.Millisecond
	config.Producer.Retry.Max = 20
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 10 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	config.Consumer.MaxWaitTime = 200 * time.Millisecond
	config.Consumer.Return.Errors = false
	config.Net.DialTimeout = 10 * time.Second
	config.Net.ReadTimeout = 20 * time.Second
	return config
}

func main() {
	sarama.Logger = log.New(io.Discard, "", 0)
	suite := compat.NewSuite("sarama", "github.com/IBM/sarama")
	brokers := suite.Brokers
	client := compat.Get(sarama.NewClient(brokers, config()))
	admin := compat.Get(sarama.NewClusterAdmin(brokers, config()))
	baseMs := compat.BaseTimestamp()
	sent := map[string][]compat.Record{}
	group, groupTopic, resumeTopic := suite.Name("group"), suite.Name("grouped"), suite.Name("resume")
	idempotentTopic := suite.Name("idempotent")

	suite.Step("create_topic", func(context.Context) {
		forever := "-1"
		create := func(topic string, partitions int32) {
			compat.Must(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: int16(suite.Nodes),
				ConfigEntries: map[string]*string{"retention.ms": &forever}}, false))
		}
		for _, codec := range codecs {
			create(suite.Name(codec.name), compat.Partitions)
		}
		create(idempotentTopic, compat.Partitions)
		create(groupTopic, 4)
		create(resumeTopic, 1)
	})

	for index, codec := range codecs {
		sent[codec.name] = compat.RecordSet(int64(index), baseMs, compat.Limits{})
		suite.Step("produce."+codec.name, func(context.Context) {
			settings := config()
			settings.Producer.Compression = codec.codec
			produce(brokers, settings, suite.Name(codec.name), sent[codec.name])
		})
		if suite.Failed("produce."+codec.name, "consume."+codec.name) {
			continue
		}
		suite.Step("consume."+codec.name, func(context.Context) {
			compat.Compare(sent[codec.name], consume(client, suite.Name(codec.name), len(sent[codec.name])))
		})
	}

	if !suite.Failed("produce.none", "offsets_by_time") {
		suite.Step("offsets_by_time", func(context.Context) {
			topic, records := suite.Name("none"), compat.OfPartition(sent["none"], 0)
			for _, question := range []struct {
				at       int64
				expected int
			}{
				{sarama.OffsetOldest, 0}, {sarama.OffsetNewest, len(records)},
				{records[5].TimestampMs, 5}, {records[5].TimestampMs - 1, 5},
			} {
				found := compat.Get(client.GetOffset(topic, 0, question.at))
				compat.Check(
					found == int64(question.expected),
					"at %d: offset %d, not %d",
					question.at,
					found,
					question.expected,
				)
			}
		})
	}

	suite.Step("idempotent", func(context.Context) {
		records := compat.RecordSet(99, baseMs, compat.Limits{})
		settings := config()
		settings.Producer.Idempotent = true
		settings.Net.MaxOpenRequests = 1
		produce(brokers, settings, idempotentTopic, records)
		compat.Compare(records, consume(client, idempotentTopic, len(records)))
	})

	rebalance := func(name string, strategy sarama.BalanceStrategy) {
		suite.Step(name, func(context.Context) {
			settings := config()
			settings.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
			one, two := join(
				brokers,
				settings,
				suite.Name(name),
				groupTopic,
			), join(
				brokers,
				settings,
				suite.Name(name),
				groupTopic,
			)
			defer one.leave()
			defer two.leave()
			compat.Until("both members own partitions", func() bool {
				first, second := one.owned(), two.owned()
				return first > 0 && second > 0 && first+second == 4
			})
			two.leave()
			compat.Until("the remaining member owns all four", func() bool { return one.owned() == 4 })
		})
	}
	rebalance("group.rebalance", sarama.NewBalanceStrategyRange())
	rebalance("group.rebalance_sticky", sarama.NewBalanceStrategySticky())

	suite.Step("group.resume", func(context.Context) {
		var records []compat.Record
		for index := range 100 {
			records = append(
				records,
				compat.Record{Value: fmt.Appendf(nil, "%d", index), TimestampMs: baseMs + int64(index)},
			)
		}
		produce(brokers, config(), resumeTopic, records)
		first := join(brokers, config(), group, resumeTopic)
		defer first.leave()
		compat.Until("40 records", func() bool { return len(first.values()) >= 40 })
		first.commit(resumeTopic, 40)
		first.leave()
		second := join(brokers, config(), group, resumeTopic)
		defer second.leave()
		compat.Until("60 records", func() bool { return len(second.values()) >= 60 })
		for index, value := range second.values() {
			compat.Check(value == fmt.Sprint(index+40), "record %d after resuming is %q", index, value)
		}
		offsets := compat.Get(admin.ListConsumerGroupOffsets(group, map[string][]int32{resumeTopic: {0}}))
		block := offsets.GetBlock(resumeTopic, 0)
		compat.Check(block.Offset == 40 && block.Metadata == "mark", "committed %d %q", block.Offset, block.Metadata)
		if suite.Nodes > 1 {
			compat.Whole()
			// The old one does not ask again when a connection it has turns out to be gone.
			admin.Close()
			admin = compat.Get(sarama.NewClusterAdmin(brokers, config()))
		}
		suite.Step("describe.group", func(context.Context) {
			described := compat.Get(admin.DescribeConsumerGroups([]string{group}))[0]
			compat.Check(
				described.State == "Stable" && len(described.Members) == 1,
				"%s, %d members",
				described.State,
				len(described.Members),
			)
			_, there := compat.Get(admin.ListConsumerGroups())[group]
			compat.Check(there, "not listed")
		})
	})

	suite.Step("group.admin_offsets", func(context.Context) {
		compat.Must(admin.DeleteConsumerGroupOffset(group, resumeTopic, 0))
		offsets := compat.Get(admin.ListConsumerGroupOffsets(group, map[string][]int32{resumeTopic: {0}}))
		compat.Check(offsets.GetBlock(resumeTopic, 0).Offset == -1, "the offset is still there after OffsetDelete")
		// The last offset and the last member are gone, so the group may be gone too.
		if _, there := compat.Get(admin.ListConsumerGroups())[group]; there {
			compat.Must(admin.DeleteConsumerGroup(group))
		}
	})

	suite.Step("describe.topic", func(context.Context) {
		described := compat.Get(admin.DescribeTopics([]string{suite.Name("none")}))[0]
		compat.Check(
			described.Err == sarama.ErrNoError && len(described.Partitions) == compat.Partitions,
			"%+v",
			described,
		)
		compat.Whole()
		nodes, _, problem := admin.DescribeCluster()
		compat.Must(problem)
		compat.Check(len(nodes) == suite.Nodes, "%d brokers", len(nodes))
		directories := compat.Get(admin.DescribeLogDirs([]int32{nodes[0].ID()}))
		compat.Check(len(directories[nodes[0].ID()]) >= 1, "no log directory")
	})

	suite.Step("describe.configs", func(context.Context) {
		topic := suite.Name("none")
		value := func(key string) string {
			resource := sarama.ConfigResource{Type: sarama.TopicResource, Name: topic}
			for _, entry := range compat.Get(admin.DescribeConfig(resource)) {
				if entry.Name == key {
					return entry.Value
				}
			}
			return "absent"
		}
		compat.Check(value("retention.ms") == "-1", "retention.ms %s", value("retention.ms"))
		compat.Check(value("max.message.bytes") == "1048588", "max.message.bytes %s", value("max.message.bytes"))
		size := "1048576"
		compat.Must(
			admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
				"segment.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &size}}, false),
		)
		compat.Until("the altered value", func() bool { return value("segment.bytes") == size })
		compat.Check(value("retention.ms") == "-1", "the change reset another key")
	})

	suite.Step("delete_records", func(context.Context) {
		compat.Must(admin.DeleteRecords(suite.Name("none"), map[int32]int64{0: 3}))
		oldest := compat.Get(client.GetOffset(suite.Name("none"), 0, sarama.OffsetOldest))
		compat.Check(oldest == 3, "oldest offset %d", oldest)
	})

	suite.Step("create_partitions", func(context.Context) {
		compat.Must(admin.CreatePartitions(suite.Name("gzip"), compat.Partitions+2, nil, false))
		compat.Until("the added partitions", func() bool {
			return len(
				compat.Get(admin.DescribeTopics([]string{suite.Name("gzip")}))[0].Partitions,
			) == compat.Partitions+2
		})
	})

	suite.Step("delete_topic", func(context.Context) {
		topics := []string{idempotentTopic, groupTopic, resumeTopic}
		for _, codec := range codecs {
			topics = append(topics, suite.Name(codec.name))
		}
		for _, topic := range topics {
			compat.Must(admin.DeleteTopic(topic))
		}
		compat.Until("the topics are gone", func() bool {
			left := compat.Get(admin.ListTopics())
			for _, topic := range topics {
				if _, there := left[topic]; there {
					return false
				}
			}
			return true
		})
	})
	suite.Finish()
}

func produce(brokers []string, settings *sarama.Config, topic string, records []compat.Record) {
	if len(brokers) > 1 {
		settings.Producer.Idempotent = true
		settings.Net.MaxOpenRequests = 1
	}
	producer := compat.Get(sarama.NewSyncProducer(brokers, settings))
	defer producer.Close()
	var batch []*sarama.ProducerMessage
	for _, record := range records {
		message := &sarama.ProducerMessage{
			Topic:     topic,
			Partition: record.Partition,
			Timestamp: time.UnixMilli(record.TimestampMs),
		}
		if record.Key != nil {
			message.Key = sarama.ByteEncoder(record.Key)
		}
		if record.Value != nil {
			message.Value = sarama.ByteEncoder(record.Value)
		}
		for _, header := range record.Headers {
			message.Headers = append(
				message.Headers,
				sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value},
			)
		}
		batch = append(batch, message)
	}
	if problem := producer.SendMessages(batch); problem != nil {
		if failures, many := problem.(sarama.ProducerErrors); many {
			compat.Must(fmt.Errorf("%d refused, first: %w", len(failures), failures[0].Err))
		}
		compat.Must(problem)
	}
}

func consume(client sarama.Client, topic string, count int) []compat.Record {
	consumer := compat.Get(sarama.NewConsumerFromClient(client))
	var found []compat.Record
	limit := time.After(compat.StepTime)
	for partition := range int32(compat.Partitions) {
		end := compat.Get(client.GetOffset(topic, partition, sarama.OffsetNewest))
		reader := compat.Get(consumer.ConsumePartition(topic, partition, sarama.OffsetOldest))
		for next := int64(0); next < end; {
			select {
			case message := <-reader.Messages():
				found = append(found, toRecord(message))
				next = message.Offset + 1
			case <-limit:
				compat.Check(false, "%d of %d records within %v", len(found), count, compat.StepTime)
			}
		}
		compat.Must(reader.Close())
	}
	return found
}

func toRecord(message *sarama.ConsumerMessage) compat.Record {
	record := compat.Record{
		Partition:   message.Partition,
		Key:         message.Key,
		Value:       message.Value,
		TimestampMs: message.Timestamp.UnixMilli(),
	}
	for _, header := range message.Headers {
		record.Headers = append(record.Headers, compat.Header{Name: string(header.Key), Value: header.Value})
	}
	return record
}

// member is one consumer of a group: it collects values, follows its assignment and commits on request.
type member struct {
	group  sarama.ConsumerGroup
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once

	mutex    sync.Mutex
	claims   int
	seen     []string
	session  sarama.ConsumerGroupSession
	assigned string
}

func join(brokers []string, settings *sarama.Config, group, topic string) *member {
	ctx, cancel := context.WithCancel(context.Background())
	one := &member{
		group:    compat.Get(sarama.NewConsumerGroup(brokers, group, settings)),
		cancel:   cancel,
		done:     make(chan struct{}),
		assigned: topic,
	}
	go func() {
		defer close(one.done)
		for ctx.Err() == nil {
			if problem := one.group.Consume(ctx, []string{topic}, one); problem != nil {
				// It has given up, for want of a coordinator say, and may be asked to go on.
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	return one
}

func (one *member) leave() {
	one.once.Do(func() {
		one.cancel()
		<-one.done
		// A member whose coordinator has moved meanwhile leaves when its session ends.
		if problem := one.group.Close(); !errors.Is(problem, sarama.ErrNotCoordinatorForConsumer) {
			compat.Must(problem)
		}
	})
}

func (one *member) owned() int {
	one.mutex.Lock()
	defer one.mutex.Unlock()
	return one.claims
}

func (one *member) values() []string {
	one.mutex.Lock()
	defer one.mutex.Unlock()
	return append([]string(nil), one.seen...)
}

func (one *member) commit(topic string, offset int64) {
	one.mutex.Lock()
	defer one.mutex.Unlock()
	one.session.MarkOffset(topic, 0, offset, "mark")
	one.session.Commit()
}

// Setup is called by sarama with a new assignment.
func (one *member) Setup(session sarama.ConsumerGroupSession) error {
	one.mutex.Lock()
	defer one.mutex.Unlock()
	one.session = session
	one.claims = len(session.Claims()[one.assigned])
	return nil
}

// Cleanup is called by sarama when the assignment ends.
func (one *member) Cleanup(sarama.ConsumerGroupSession) error {
	one.mutex.Lock()
	defer one.mutex.Unlock()
	one.claims = 0
	return nil
}

// ConsumeClaim is called by sarama for each partition.
func (one *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			one.mutex.Lock()
			one.seen = append(one.seen, string(message.Value))
			one.mutex.Unlock()
		case <-session.Context().Done():
			return nil
		}
	}
}
