package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	lookEvery = 50 * time.Millisecond
	// So long every answer must say the same: brokers hear of changes at different times.
	wholeFor = time.Second
)

// whole waits until every replica of the topic is in sync, whichever broker is asked, and says who leads its first
// partition and who is the active controller.
func whole() (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(*brokers, ",")...), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	since := time.Now()
	leader := int32(-1)
	for leader < 0 || time.Since(since) < wholeFor {
		details, err := admin.ListTopics(ctx, *topic)
		if found := details[*topic]; err == nil && isWhole(found) {
			if first := found.Partitions[0].Leader; first != leader {
				leader, since = first, time.Now()
			}
		} else {
			leader = -1
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("not every replica of %s is in sync after %v", *topic, *limit)
		}
		time.Sleep(lookEvery)
	}
	controller, err := activeController(ctx, client)
	return map[string]any{"leader": leader, "controller": controller}, err
}

func isWhole(topic kadm.TopicDetail) bool {
	for _, partition := range topic.Partitions {
		if partition.Err != nil || partition.Leader < 0 || len(partition.ISR) != len(partition.Replicas) {
			return false
		}
	}
	return topic.Err == nil && len(topic.Partitions) > 0
}

// activeController leads the metadata quorum; what Metadata answers names any broker.
func activeController(ctx context.Context, client *kgo.Client) (int32, error) {
	partition := kmsg.NewDescribeQuorumRequestTopicPartition()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic, topic.Partitions = "__cluster_metadata", []kmsg.DescribeQuorumRequestTopicPartition{partition}
	request := kmsg.NewPtrDescribeQuorumRequest()
	request.Topics = []kmsg.DescribeQuorumRequestTopic{topic}
	for {
		answer, err := request.RequestWith(ctx, client)
		if err == nil {
			err = kerr.ErrorForCode(answer.ErrorCode)
		}
		if err == nil && (len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1) {
			return -1, fmt.Errorf("no quorum in %v", answer)
		}
		if err == nil {
			found := answer.Topics[0].Partitions[0]
			if err = kerr.ErrorForCode(found.ErrorCode); err == nil && found.LeaderID >= 0 {
				return found.LeaderID, nil
			}
		}
		if ctx.Err() != nil {
			return -1, fmt.Errorf("who is the active controller: %w", err)
		}
		time.Sleep(lookEvery)
	}
}
