import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Threads that each wait for the acknowledgement of a message before they send the next, through RocketMQ's own client.
 *
 * <p>Arguments: name server, topic, senders, bytes, seconds that do not count, seconds that do. Prints the same line of
 * JSON as the franz-go program. With no senders it only makes the topic.
 */
public final class Sender {
    private static final int SEND_TIMEOUT_MS = 10_000;
    /** Longest time to wait for the broker to have told the name server of itself. */
    private static final long START_NANOS_MAX = 60_000_000_000L;

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1];
        int senders = Integer.parseInt(arguments[2]);
        DefaultMQProducer producer = new DefaultMQProducer("side-by-side");
        producer.setNamesrvAddr(arguments[0]);
        producer.setSendMsgTimeout(SEND_TIMEOUT_MS);
        producer.setRetryTimesWhenSendFailed(0);
        // Compression would be an advantage that the others do not take.
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        producer.start();
        try {
            if (senders == 0) {
                create(producer, topic);
                System.out.println("{}");
            } else {
                byte[] body = new byte[Integer.parseInt(arguments[3])];
                new Random(1).nextBytes(body);
                double warm = Double.parseDouble(arguments[4]);
                double counted = Double.parseDouble(arguments[5]);
                System.out.println(send(producer, topic, senders, body, warm, counted));
            }
        } finally {
            producer.shutdown();
        }
        System.exit(0);
    }

    private static void create(DefaultMQProducer producer, String topic) throws Exception {
        long deadline = System.nanoTime() + START_NANOS_MAX;
        while (true) {
            try {
                producer.createTopic("TBW102", topic, 1, null);
                SendResult result = producer.send(new Message(topic, new byte[1]));
                if (result.getSendStatus() == SendStatus.SEND_OK) {
                    return;
                }
            } catch (Exception notYet) {
                if (System.nanoTime() > deadline) {
                    throw notYet;
                }
            }
            Thread.sleep(100);
        }
    }

    private static String send(
            DefaultMQProducer producer, String topic, int senders, byte[] body, double warm, double counted)
            throws Exception {
        MessageQueue queue = producer.fetchPublishMessageQueues(topic).get(0);
        long from = System.nanoTime() + (long) (warm * 1e9);
        long until = from + (long) (counted * 1e9);
        AtomicLong sent = new AtomicLong();
        AtomicReference<Throwable> failed = new AtomicReference<>();
        List<int[]> all = new ArrayList<>();
        Thread[] threads = new Thread[senders];
        for (int i = 0; i < senders; i++) {
            threads[i] = new Thread(() -> {
                int[] took = new int[1 << 12];
                int count = 0;
                try {
                    while (true) {
                        long begin = System.nanoTime();
                        if (begin > until) {
                            break;
                        }
                        // Anything but SEND_OK, a flush that took too long among it, is no acknowledgement.
                        SendResult result = producer.send(new Message(topic, body), queue);
                        long end = System.nanoTime();
                        if (result.getSendStatus() != SendStatus.SEND_OK) {
                            throw new IllegalStateException(result.getSendStatus().toString());
                        }
                        sent.incrementAndGet();
                        if (end > from && end <= until) {
                            if (count == took.length) {
                                took = Arrays.copyOf(took, count * 2);
                            }
                            took[count++] = (int) ((end - begin) / 1000);
                        }
                    }
                } catch (Throwable problem) {
                    failed.set(problem);
                }
                synchronized (all) {
                    all.add(Arrays.copyOf(took, count));
                }
            });
            threads[i].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        if (failed.get() != null) {
            throw new IllegalStateException("a send failed", failed.get());
        }
        int[] values = all.stream().flatMapToInt(Arrays::stream).sorted().toArray();
        return String.format(
                "{\"records\":%d,\"sent\":%d,\"rate\":%.1f,\"p50_us\":%d,\"p90_us\":%d,\"p99_us\":%d,\"p999_us\":%d,\"max_us\":%d}",
                values.length,
                sent.get(),
                values.length / counted,
                at(values, 0.5),
                at(values, 0.9),
                at(values, 0.99),
                at(values, 0.999),
                at(values, 1));
    }

    private static int at(int[] sorted, double share) {
        return sorted.length == 0 ? 0 : sorted[Math.min((int) (sorted.length * share), sorted.length - 1)];
    }
}
