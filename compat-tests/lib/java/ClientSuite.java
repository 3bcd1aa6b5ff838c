import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.errors.TransactionalIdAuthorizationException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/** The Java client, compiled against each pinned version: every codec, groups, offsets, idempotence and Admin. */
public final class ClientSuite {

    private static final int PARTITIONS = 3;
    private static final int REFUSAL_SECONDS = 10;
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    private final Suite suite = new Suite(Versions.CLIENT, AppInfoParser.getVersion());
    private final Admin admin = Admin.create(
        Map.of("bootstrap.servers", suite.bootstrap, "default.api.timeout.ms", 30000)
    );
    /** An hour ago, so that retention by time never touches the records. */
    private final long baseMs = (System.currentTimeMillis() / 1000 - 3600) * 1000;
    private final Map<String, List<ProducerRecord<byte[], byte[]>>> sent = new HashMap<>();
    private final String group = suite.name("group");
    private final String groupTopic = suite.name("grouped");
    private final String resumeTopic = suite.name("resume");
    private final String idempotentTopic = suite.name("idempotent");
    private final String transactionTopic = suite.name("transaction");

    public static void main(String[] arguments) {
        new ClientSuite().run();
    }

    private void run() {
        suite.step("create_topic", () -> {
            for (var codec : CODECS) create(suite.name(codec), PARTITIONS);
            create(idempotentTopic, PARTITIONS);
            create(transactionTopic, 1);
            create(groupTopic, 4);
            create(resumeTopic, 1);
        });
        for (var codec : CODECS) {
            sent.put(codec, records(suite.name(codec), codec.hashCode()));
            suite.step("produce." + codec, () ->
                produce(sent.get(codec), Map.of("compression.type", codec, "enable.idempotence", suite.nodes > 1))
            );
            if (suite.failed("produce." + codec, "consume." + codec)) continue;
            suite.step("consume." + codec, () ->
                compare(sent.get(codec), consume(suite.name(codec), sent.get(codec).size()))
            );
        }
        if (!suite.failed("produce.none", "offsets_by_time")) suite.step("offsets_by_time", this::offsetsByTime);
        suite.step("idempotent", () -> {
            var records = records(idempotentTopic, 99);
            produce(records, Map.of("enable.idempotence", true, "max.in.flight.requests.per.connection", 5));
            compare(records, consume(idempotentTopic, records.size()));
        });
        transactions();
        suite.step("group.rebalance", () -> rebalance("eager", RangeAssignor.class.getName()));
        suite.step("group.rebalance_cooperative", () ->
            rebalance("cooperative", CooperativeStickyAssignor.class.getName())
        );
        suite.step("group.static_member", this::staticMember);
        suite.step("group.resume", this::resume);
        suite.step("group.admin_offsets", this::adminOffsets);
        suite.step("describe.topic", () -> {
            suite.whole();
            var described = Versions.describe(admin, List.of(suite.name("none"))).get(suite.name("none"));
            Suite.check(
                described.partitions().size() == PARTITIONS && described.partitions().get(0).leader() != null,
                described.toString()
            );
            var cluster = admin.describeCluster();
            Suite.check(
                get(cluster.nodes()).size() == suite.nodes &&
                    get(cluster.controller()) != null &&
                    !get(cluster.clusterId()).isEmpty(),
                "cluster"
            );
        });
        suite.step("describe.configs", this::configs);
        suite.step("describe.acls", () -> {
            // Without an authorizer there is nothing to describe, and that is what the answer must say.
            try {
                get(admin.describeAcls(AclBindingFilter.ANY).values());
            } catch (java.util.concurrent.ExecutionException refused) {
                Suite.check(refused.getCause() instanceof SecurityDisabledException, refused.toString());
            }
        });
        Versions.more(suite, admin, suite.name("none"), 0, of(sent.get("none"), 0).size() - 1);
        suite.step("describe.log_dirs", () -> {
            var ids = get(admin.describeCluster().nodes())
                .stream()
                .map(node -> node.id())
                .toList();
            long size = get(admin.describeLogDirs(ids).allDescriptions())
                .values()
                .stream()
                .flatMap(directories -> directories.values().stream())
                .flatMap(directory -> directory.replicaInfos().entrySet().stream())
                .filter(replica -> replica.getKey().topic().equals(suite.name("none")))
                .mapToLong(replica -> replica.getValue().size())
                .sum();
            Suite.check(size > Suite.LARGE_BYTES, "the topic holds " + size + " bytes");
        });
        suite.step("delete_records", () -> {
            var asked = new TopicPartition(suite.name("none"), 0);
            var deleted = get(
                admin
                    .deleteRecords(Map.of(asked, RecordsToDelete.beforeOffset(3)))
                    .lowWatermarks()
                    .get(asked)
            );
            Suite.check(deleted.lowWatermark() == 3, "low watermark " + deleted.lowWatermark());
        });
        suite.step("create_partitions", () -> {
            get(admin.createPartitions(Map.of(suite.name("gzip"), NewPartitions.increaseTo(PARTITIONS + 2))).all());
            Suite.until(
                "the added partitions",
                () ->
                    Versions.describe(admin, List.of(suite.name("gzip")))
                        .get(suite.name("gzip"))
                        .partitions()
                        .size() ==
                    PARTITIONS + 2
            );
        });
        suite.step("delete_topic", () -> {
            var topics = new ArrayList<>(List.of(idempotentTopic, transactionTopic, groupTopic, resumeTopic));
            CODECS.forEach(codec -> topics.add(suite.name(codec)));
            get(admin.deleteTopics(topics).all());
            Suite.until("the topics are gone", () ->
                get(admin.listTopics().names()).stream().noneMatch(topics::contains)
            );
        });
        admin.close(Duration.ofSeconds(5));
        suite.finish();
    }

    private static <T> T get(Future<T> answer) throws Exception {
        return answer.get(Suite.STEP_SECONDS, TimeUnit.SECONDS);
    }

    private void create(String topic, int partitions) throws Exception {
        get(
            admin
                .createTopics(List.of(new NewTopic(topic, partitions, (short) suite.nodes).configs(Map.of("retention.ms", "-1"))))
                .all()
        );
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** Nulls, empties, repeated headers, one large record and a batch of small ones, over all partitions. */
    private List<ProducerRecord<byte[], byte[]>> records(String topic, int seed) {
        var large = new byte[Suite.LARGE_BYTES];
        new Random(seed).nextBytes(large);
        var keys = new ArrayList<>(
            Arrays.asList(
                bytes("key"),
                null,
                bytes("null value"),
                bytes("empty value"),
                bytes(""),
                bytes("headers"),
                bytes("schlüssel-鍵"),
                bytes("large")
            )
        );
        var values = new ArrayList<>(
            Arrays.asList(
                bytes("value"),
                bytes("null key"),
                null,
                bytes(""),
                bytes("empty key"),
                bytes("many"),
                bytes("wert-値-🪨"),
                large
            )
        );
        for (int index = 0; index < 120; index++) {
            keys.add(bytes("key-" + (index % 7)));
            values.add(bytes(String.format("value-%06d ", index) + "compressible ".repeat(8)));
        }
        var records = new ArrayList<ProducerRecord<byte[], byte[]>>();
        for (int index = 0; index < keys.size(); index++) {
            records.add(
                new ProducerRecord<>(
                    topic,
                    index % PARTITIONS,
                    baseMs + index * 10L,
                    keys.get(index),
                    values.get(index)
                )
            );
        }
        records
            .get(0)
            .headers()
            .add("trace", new byte[] { 0, 1, -2, -1 });
        records.get(5).headers().add("a", bytes("1")).add("a", bytes("2")).add("empty", bytes("")).add("null", null);
        records.get(6).headers().add("ünicode", bytes("✓"));
        return records;
    }

    private Map<String, Object> producerSettings() {
        var settings = new HashMap<String, Object>();
        settings.put("bootstrap.servers", suite.bootstrap);
        settings.put("acks", "all");
        settings.put("linger.ms", 20);
        settings.put("delivery.timeout.ms", 30000);
        settings.put("request.timeout.ms", 20000);
        settings.put("max.block.ms", 30000);
        settings.put("key.serializer", ByteArraySerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        return settings;
    }

    private void produce(List<ProducerRecord<byte[], byte[]>> records, Map<String, Object> settings) throws Exception {
        var all = new HashMap<>(producerSettings());
        all.putAll(settings);
        try (var producer = new KafkaProducer<byte[], byte[]>(all)) {
            var answers = new ArrayList<Future<RecordMetadata>>();
            for (var record : records) answers.add(producer.send(record));
            producer.flush();
            var next = new HashMap<Integer, Long>();
            for (var answer : answers) {
                var metadata = get(answer);
                long expected = next.merge(metadata.partition(), 1L, Long::sum) - 1;
                Suite.check(
                    metadata.offset() == expected,
                    "offset " + metadata.offset() + " where " + expected + " was due"
                );
            }
        }
    }

    private KafkaConsumer<byte[], byte[]> consumer(String groupId, Map<String, Object> settings) {
        var all = new HashMap<String, Object>();
        all.put("bootstrap.servers", suite.bootstrap);
        all.put("group.id", groupId);
        all.put("auto.offset.reset", "earliest");
        all.put("enable.auto.commit", false);
        all.put("session.timeout.ms", 10000);
        all.put("heartbeat.interval.ms", 300);
        all.put("fetch.max.wait.ms", 200);
        all.put("default.api.timeout.ms", 30000);
        all.put("key.deserializer", ByteArrayDeserializer.class);
        all.put("value.deserializer", ByteArrayDeserializer.class);
        all.putAll(settings);
        return new KafkaConsumer<>(all);
    }

    private static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count)
        throws Exception {
        var found = new ArrayList<ConsumerRecord<byte[], byte[]>>();
        Suite.until(count + " records", () -> {
            consumer.poll(Duration.ofMillis(300)).forEach(found::add);
            return found.size() >= count;
        });
        return found;
    }

    private List<ConsumerRecord<byte[], byte[]>> consume(String topic, int count) throws Exception {
        try (var consumer = consumer(suite.name("unused"), Map.of())) {
            var partitions = new ArrayList<TopicPartition>();
            for (int partition = 0; partition < PARTITIONS; partition++) partitions.add(
                new TopicPartition(topic, partition)
            );
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var found = read(consumer, count);
            long ends = consumer.endOffsets(partitions).values().stream().mapToLong(Long::longValue).sum();
            Suite.check(ends == count, "the end offsets add up to " + ends + ", not " + count);
            return found;
        }
    }

    private static List<ProducerRecord<byte[], byte[]>> of(
        List<ProducerRecord<byte[], byte[]>> records,
        int partition
    ) {
        return records
            .stream()
            .filter(record -> record.partition() == partition)
            .toList();
    }

    private static void compare(
        List<ProducerRecord<byte[], byte[]>> sent,
        List<ConsumerRecord<byte[], byte[]>> received
    ) {
        for (int partition = 0; partition < PARTITIONS; partition++) {
            int number = partition;
            var want = of(sent, partition);
            var have = received
                .stream()
                .filter(record -> record.partition() == number)
                .toList();
            Suite.check(
                want.size() == have.size(),
                "partition " + partition + ": sent " + want.size() + ", received " + have.size()
            );
            for (int index = 0; index < want.size(); index++) {
                var left = want.get(index);
                var right = have.get(index);
                // RecordHeaders and RecordHeader compare by name and bytes, null apart from empty.
                boolean same =
                    Arrays.equals(left.key(), right.key()) &&
                    Arrays.equals(left.value(), right.value()) &&
                    left.timestamp() == right.timestamp() &&
                    right.timestampType() == TimestampType.CREATE_TIME &&
                    Arrays.equals(left.headers().toArray(), right.headers().toArray()) &&
                    right.offset() == index;
                Suite.check(
                    same,
                    "partition " +
                        partition +
                        " record " +
                        index +
                        " differs: " +
                        right.headers() +
                        " offset " +
                        right.offset() +
                        " timestamp " +
                        right.timestamp() +
                        " for " +
                        left.timestamp()
                );
            }
        }
    }

    private void offsetsByTime() throws Exception {
        var asked = new TopicPartition(suite.name("none"), 0);
        var records = of(sent.get("none"), 0);
        long fifth = records.get(5).timestamp();
        var questions = Map.of(
            OffsetSpec.earliest(),
            0L,
            OffsetSpec.latest(),
            (long) records.size(),
            OffsetSpec.forTimestamp(fifth),
            5L,
            OffsetSpec.forTimestamp(fifth - 1),
            5L,
            OffsetSpec.forTimestamp(records.get(records.size() - 1).timestamp() + 1),
            -1L
        );
        for (var question : questions.entrySet()) {
            long found = get(admin.listOffsets(Map.of(asked, question.getKey())).all())
                .get(asked)
                .offset();
            Suite.check(
                found == question.getValue(),
                question.getKey() + ": offset " + found + ", not " + question.getValue()
            );
        }
        try (var consumer = consumer(suite.name("unused"), Map.of())) {
            var found = consumer.offsetsForTimes(Map.of(asked, fifth)).get(asked);
            Suite.check(found.offset() == 5 && found.timestamp() == fifth, found.toString());
        }
    }

    /**
     * A whole transaction, or a refusal that the client takes as final: a broker without transactions must not make it
     * retry for ever.
     */
    private void transactions() {
        long started = System.nanoTime();
        var refusal = new TransactionalIdAuthorizationException[1];
        suite.step("transactions", () -> {
            var settings = new HashMap<String, Object>(producerSettings());
            settings.put("transactional.id", suite.name("transaction"));
            try (var producer = new KafkaProducer<byte[], byte[]>(settings)) {
                producer.initTransactions();
                for (boolean commit : new boolean[] { false, true }) {
                    producer.beginTransaction();
                    producer.send(new ProducerRecord<>(transactionTopic, 0, null, bytes(commit ? "kept" : "dropped")));
                    if (commit) producer.commitTransaction();
                    else producer.abortTransaction();
                }
            } catch (TransactionalIdAuthorizationException refused) {
                double seconds = (System.nanoTime() - started) / 1e9;
                Suite.check(seconds < REFUSAL_SECONDS, "refused, but only after " + seconds + " s");
                refusal[0] = refused;
                return;
            }
            try (var consumer = consumer(suite.name("unused"), Map.of("isolation.level", "read_committed"))) {
                var asked = List.of(new TopicPartition(transactionTopic, 0));
                consumer.assign(asked);
                consumer.seekToBeginning(asked);
                var value = new String(read(consumer, 1).get(0).value(), StandardCharsets.UTF_8);
                Suite.check(value.equals("kept"), "read_committed returned " + value);
            }
        });
        if (refusal[0] != null) suite.refused("transactions", refusal[0].getMessage());
    }

    private void rebalance(String name, String assignor) throws Exception {
        var settings = Map.<String, Object>of("partition.assignment.strategy", assignor, "max.poll.interval.ms", 30000);
        var one = consumer(suite.name(name), settings);
        var two = consumer(suite.name(name), settings);
        try {
            one.subscribe(List.of(groupTopic));
            two.subscribe(List.of(groupTopic));
            Suite.until("both members own partitions", () -> {
                one.poll(Duration.ofMillis(100));
                two.poll(Duration.ofMillis(100));
                int first = one.assignment().size();
                int second = two.assignment().size();
                return first > 0 && second > 0 && first + second == 4;
            });
            two.close(Duration.ofSeconds(10));
            Suite.until("the remaining member owns all four", () -> {
                one.poll(Duration.ofMillis(100));
                return one.assignment().size() == 4;
            });
        } finally {
            two.close(Duration.ofSeconds(10));
            one.close(Duration.ofSeconds(10));
        }
    }

    /** A static member that comes back within its session gets its partitions again without a rebalance. */
    private void staticMember() throws Exception {
        var first = consumer(suite.name("static"), Map.of("group.instance.id", "one", "max.poll.interval.ms", 30000));
        first.subscribe(List.of(groupTopic));
        Suite.until("the static member owns all four", () -> {
            first.poll(Duration.ofMillis(100));
            return first.assignment().size() == 4;
        });
        int generation = first.groupMetadata().generationId();
        first.close(Duration.ofSeconds(10));
        try (
            var again = consumer(
                suite.name("static"),
                Map.of("group.instance.id", "one", "max.poll.interval.ms", 30000)
            )
        ) {
            again.subscribe(List.of(groupTopic));
            Suite.until("the returned member owns all four", () -> {
                again.poll(Duration.ofMillis(100));
                return again.assignment().size() == 4;
            });
            Suite.check(
                again.groupMetadata().generationId() == generation,
                "generation " + generation + " became " + again.groupMetadata().generationId()
            );
        }
    }

    private void resume() throws Exception {
        var records = new ArrayList<ProducerRecord<byte[], byte[]>>();
        for (int index = 0; index < 100; index++) {
            records.add(new ProducerRecord<>(resumeTopic, 0, baseMs + index, null, bytes(Integer.toString(index))));
        }
        produce(records, Map.of());
        var asked = new TopicPartition(resumeTopic, 0);
        int position;
        try (var first = consumer(group, Map.of("max.poll.records", 20))) {
            first.subscribe(List.of(resumeTopic));
            position = read(first, 40).size();
            Suite.check(position == 40, "read " + position);
            first.commitSync(Map.of(asked, new OffsetAndMetadata(position, "märk")), Duration.ofSeconds(20));
        }
        try (var second = consumer(group, Map.of())) {
            second.subscribe(List.of(resumeTopic));
            var rest = read(second, 100 - position);
            for (int index = 0; index < rest.size(); index++) {
                String value = new String(rest.get(index).value(), StandardCharsets.UTF_8);
                Suite.check(
                    value.equals(Integer.toString(index + position)),
                    value + " where " + (index + position) + " should be"
                );
            }
            var committed = second.committed(java.util.Set.of(asked), Duration.ofSeconds(20)).get(asked);
            Suite.check(committed.offset() == position && committed.metadata().equals("märk"), committed.toString());
            second.commitSync(Duration.ofSeconds(20));
            suite.step("describe.group", () -> {
                String state = Versions.groupState(admin, group);
                Suite.check(state.equalsIgnoreCase("Stable/1"), state);
                Suite.check(
                    get(admin.listConsumerGroups().all())
                        .stream()
                        .anyMatch(entry -> entry.groupId().equals(group)),
                    "not listed"
                );
            });
        }
    }

    private void adminOffsets() throws Exception {
        var asked = new TopicPartition(resumeTopic, 0);
        get(admin.alterConsumerGroupOffsets(group, Map.of(asked, new OffsetAndMetadata(7))).all());
        var offsets = get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
        Suite.check(offsets.get(asked).offset() == 7, offsets.toString());
        get(admin.deleteConsumerGroupOffsets(group, java.util.Set.of(asked)).all());
        offsets = get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
        Suite.check(offsets.get(asked) == null, "the offset is still there after OffsetDelete");
        // The last offset and the last member are gone, so the group may be gone too.
        if (
            get(admin.listConsumerGroups().all())
                .stream()
                .anyMatch(entry -> entry.groupId().equals(group))
        ) {
            get(admin.deleteConsumerGroups(List.of(group)).all());
        }
    }

    private void configs() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, suite.name("none"));
        var before = get(admin.describeConfigs(List.of(resource)).all()).get(resource);
        Suite.check(
            before.get("retention.ms").value().equals("-1") && !before.get("retention.ms").isDefault(),
            "retention.ms"
        );
        Suite.check(before.get("max.message.bytes").value().equals("1048588"), "max.message.bytes");
        var change = new AlterConfigOp(new ConfigEntry("segment.bytes", "1048576"), AlterConfigOp.OpType.SET);
        get(admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all());
        Suite.until("the altered value", () ->
            get(admin.describeConfigs(List.of(resource)).all())
                .get(resource)
                .get("segment.bytes")
                .value()
                .equals("1048576")
        );
        Suite.check(
            get(admin.describeConfigs(List.of(resource)).all())
                .get(resource)
                .get("retention.ms")
                .value()
                .equals("-1"),
            "the change reset another key"
        );
        var wrong = new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET);
        try {
            get(admin.incrementalAlterConfigs(Map.of(resource, List.of(wrong))).all());
            throw new AssertionError("a retention of `soon` was accepted");
        } catch (java.util.concurrent.ExecutionException refused) {
            Suite.check(
                refused.getCause() instanceof org.apache.kafka.common.errors.InvalidConfigurationException,
                refused.toString()
            );
        }
    }
}
