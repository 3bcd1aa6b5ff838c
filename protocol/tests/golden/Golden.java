import java.io.*;
import java.nio.ByteBuffer;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.internal.*;

/**
 * With Kafka 4.3.1 and its libraries on the class path (java -cp "libs/*" Golden.java …): writes the golden batches of this
 * directory with Kafka's own classes, and reads what Stonelog wrote.
 *
 *   java Golden.java batches DIR          writes the batches
 *   java Golden.java requests < LINES     checks lines "key version hex": Kafka reads each whole and writes the same
 *   java Golden.java responses < LINES    the same for bodies of responses
 *   java Golden.java read FILE...         checks and prints batches
 *   java Golden.java errors               prints "code NAME retriable" of every error
 */
public class Golden {
    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "batches" -> batches(Path.of(args[1]));
            case "requests" -> messages(true);
            case "responses" -> messages(false);
            case "errors" -> errors();
            case "read" -> { for (int i = 1; i < args.length; i++) read(Path.of(args[i])); }
        }
    }

    static void batches(Path dir) throws IOException {
        for (CompressionType type : CompressionType.values()) {
            MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 16), (byte) 2,
                Compression.of(type).build(), TimestampType.CREATE_TIME, 0L, -1L, 4242L, (short) 3, 17, false, -1);
            Header[] headers = {
                new RecordHeader("same", "1".getBytes()), new RecordHeader("same", null), new RecordHeader("", new byte[0])
            };
            builder.append(1700000000000L, "key".getBytes(), "value".getBytes(), headers);
            builder.append(1700000000400L, null, new byte[0]);
            builder.append(1699999999000L, new byte[0], (byte[]) null);
            builder.append(1700000000100L, "long".getBytes(), "0123456789".repeat(400).getBytes());
            write(dir.resolve("batch-" + type.name + ".bin"), builder.build());
        }
        write(dir.resolve("commit-marker.bin"), MemoryRecords.withEndTransactionMarker(100L, 1700000000000L, 5, 4242L,
            (short) 3, new EndTransactionMarker(ControlRecordType.COMMIT, 9)));
    }

    static void write(Path file, MemoryRecords records) throws IOException {
        ByteBuffer buffer = records.buffer().duplicate();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        Files.write(file, bytes);
    }

    static void messages(boolean areRequests) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        int good = 0, bad = 0;
        for (String line; (line = in.readLine()) != null; ) {
            String[] parts = line.split(" ");
            short key = Short.parseShort(parts[0]), version = Short.parseShort(parts[1]);
            byte[] bytes = parts.length > 2 ? HexFormat.of().parseHex(parts[2]) : new byte[0];
            try {
                ApiMessageType type = ApiMessageType.fromApiKey(key);
                ApiMessage message = areRequests ? type.newRequest() : type.newResponse();
                ByteBufferAccessor readable = new ByteBufferAccessor(ByteBuffer.wrap(bytes));
                message.read(readable, version);
                ObjectSerializationCache cache = new ObjectSerializationCache();
                ByteBuffer out = ByteBuffer.allocate(message.size(cache, version));
                message.write(new ByteBufferAccessor(out), cache, version);
                if (readable.remaining() != 0 || !Arrays.equals(out.array(), bytes)) {
                    throw new IOException("differs: " + readable.remaining() + " left, wrote "
                        + HexFormat.of().formatHex(out.array()));
                }
                good++;
            } catch (Exception e) {
                bad++;
                System.out.println(ApiMessageType.fromApiKey(key).name + " v" + version + ": " + e);
            }
        }
        System.out.println(good + " good, " + bad + " bad");
    }

    static void errors() {
        for (Errors error : Errors.values())
            System.out.println(error.code() + " " + error.name() + " " + (error.exception() instanceof RetriableException));
    }

    static void read(Path file) throws IOException {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(file)));
        for (MutableRecordBatch batch : records.batches()) {
            batch.ensureValid();
            StringBuilder text = new StringBuilder(file.getFileName() + ": " + batch.compressionType() + " count "
                + batch.countOrNull() + " pid " + batch.producerId() + " seq " + batch.baseSequence() + "-" + batch.lastSequence());
            for (org.apache.kafka.common.record.internal.Record record : batch)
                text.append("\n  ").append(record.offset()).append(" ").append(record.timestamp()).append(" ")
                    .append(record.hasKey() ? record.keySize() : "null").append(" ")
                    .append(record.hasValue() ? record.valueSize() : "null").append(" ").append(Arrays.toString(record.headers()));
            System.out.println(text);
        }
    }
}
