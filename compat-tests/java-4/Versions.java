import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnsupportedVersionException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.Uuid;

/** What kafka-clients 4 says differently from 2.8, or can do besides. */
final class Versions {

    static final String CLIENT = "java-4";

    private Versions() {}

    static Map<String, TopicDescription> describe(Admin admin, Collection<String> topics) throws Exception {
        return admin.describeTopics(topics).allTopicNames().get(Suite.STEP_SECONDS, TimeUnit.SECONDS);
    }

    static String groupState(Admin admin, String group) throws Exception {
        var described = admin
            .describeConsumerGroups(List.of(group))
            .all()
            .get(Suite.STEP_SECONDS, TimeUnit.SECONDS)
            .get(group);
        return described.groupState() + "/" + described.members().size();
    }

    /** Steps that only this version has. */
    static void more(Suite suite, Admin admin, String topic, int partition, long newest) {
        consumerProtocol(suite, topic);
        suite.step("offsets_max_timestamp", () -> {
            var asked = new TopicPartition(topic, partition);
            var found = admin
                .listOffsets(Map.of(asked, OffsetSpec.maxTimestamp()))
                .all()
                .get(Suite.STEP_SECONDS, TimeUnit.SECONDS);
            Suite.check(found.get(asked).offset() == newest, "offset " + found.get(asked).offset());
        });
        suite.step("describe.topic_id", () -> {
            Uuid id = describe(admin, List.of(topic)).get(topic).topicId();
            Suite.check(!id.equals(Uuid.ZERO_UUID), "no topic id");
            var byId = admin
                .describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(id)))
                .allTopicIds()
                .get(Suite.STEP_SECONDS, TimeUnit.SECONDS);
            Suite.check(byId.get(id).name().equals(topic), "another name by id");
        });
    }

    /** KIP-848: a member that gets its partitions, or an error that names what is missing. */
    private static void consumerProtocol(Suite suite, String topic) {
        var refusal = new UnsupportedVersionException[1];
        suite.step("group.consumer_protocol", () -> {
            var settings = new HashMap<String, Object>();
            settings.put("bootstrap.servers", suite.bootstrap);
            settings.put("group.id", suite.name("consumer-protocol"));
            settings.put("group.protocol", "consumer");
            settings.put("auto.offset.reset", "earliest");
            settings.put("key.deserializer", ByteArrayDeserializer.class);
            settings.put("value.deserializer", ByteArrayDeserializer.class);
            try (var consumer = new KafkaConsumer<byte[], byte[]>(settings)) {
                consumer.subscribe(List.of(topic));
                Suite.until("a record", () -> !consumer.poll(Duration.ofMillis(300)).isEmpty());
            } catch (UnsupportedVersionException refused) {
                refusal[0] = refused;
            }
        });
        if (refusal[0] != null) suite.refused("group.consumer_protocol", refusal[0].getMessage());
    }
}
