import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ThreadLocalRandom;

/**
 * The list of steps of one Java suite and their outcomes.
 *
 * <p>Not a client and not a test. A step that did not run is either "fail" or "lacks", never silent; the process cannot
 * outlive its watchdog.
 */
final class Suite {

    static final int STEP_SECONDS = 40;
    /** Just below max.message.bytes (1,048,588), and incompressible. */
    static final int LARGE_BYTES = 1_040_000;
    private static final int WATCHDOG_SECONDS = 240;

    interface Body {
        void run() throws Exception;
    }

    interface Attempt {
        boolean reached() throws Exception;
    }

    final String bootstrap = System.getenv("BOOTSTRAP");
    /**
     * Brokers of the cluster under test. With several, topics have as many replicas, and producers are idempotent,
     * because the runner kills leaders meanwhile.
     */
    final int nodes = Integer.parseInt(System.getenv().getOrDefault("COMPAT_NODES", "1"));
    private final String client;
    private final String version;
    private final String prefix;
    private final Map<String, String> steps = new LinkedHashMap<>();

    Suite(String client, String version) {
        this.client = client;
        this.version = version;
        this.prefix =
            "compat-" +
            client +
            "-" +
            ProcessHandle.current().pid() +
            "-" +
            Integer.toHexString(ThreadLocalRandom.current().nextInt());
        var watchdog = new Thread(() -> {
            try {
                Thread.sleep(WATCHDOG_SECONDS * 1000L);
            } catch (InterruptedException stop) {
                return;
            }
            System.out.println("the suite took longer than " + WATCHDOG_SECONDS + " s");
            Thread.getAllStackTraces().forEach((thread, frames) -> {
                System.out.println("    " + thread);
                for (var frame : frames) System.out.println("        " + frame);
            });
            Runtime.getRuntime().halt(2);
        });
        watchdog.setDaemon(true);
        watchdog.start();
        System.out.println("client " + client + " " + version);
    }

    /** A topic or group of this run only. */
    String name(String suffix) {
        return prefix + "-" + suffix;
    }

    /** Runs one step; a failure is recorded and printed, and the suite goes on. */
    void step(String name, Body body) {
        long started = System.nanoTime();
        try {
            body.run();
            steps.put(name, "pass");
            System.out.printf("  pass %s (%.1f s)%n", name, (System.nanoTime() - started) / 1e9);
        } catch (Throwable problem) {
            Throwable cause =
                problem instanceof ExecutionException && problem.getCause() != null ? problem.getCause() : problem;
            String text = cause.getClass().getSimpleName() + ": " + cause.getMessage();
            steps.put(name, "fail: " + text.substring(0, Math.min(text.length(), 400)));
            System.out.println("  FAIL " + name + ": " + text);
            var frames = cause.getStackTrace();
            for (int at = 0; at < Math.min(6, frames.length); at++) System.out.println("    at " + frames[at]);
        }
    }

    /** Whether step {@code name} failed; if so, step {@code then} needs it and counts as failed too. */
    boolean failed(String name, String then) {
        if (!steps.getOrDefault(name, "pass").startsWith("fail")) return false;
        steps.put(then, "fail: not run, " + name + " failed");
        System.out.println("  FAIL " + then + ": not run, " + name + " failed");
        return true;
    }

    /** Records that the broker has no such feature, and said so in the way that it should. */
    void refused(String name, String reason) {
        steps.put(name, "refused");
        System.out.println("  refused " + name + ": " + reason);
    }

    /** Records that the client, not the broker, has no such feature. */
    void lacks(String name, String reason) {
        steps.put(name, "lacks");
        System.out.println("  lacks " + name + ": " + reason);
    }

    static void check(boolean condition, String message) {
        if (!condition) throw new AssertionError(message);
    }

    /** Asks again until the attempt answers true; it may block for a short poll only. */
    static void until(String what, Attempt attempt) throws Exception {
        long limit = System.nanoTime() + STEP_SECONDS * 1_000_000_000L;
        while (!attempt.reached()) {
            check(System.nanoTime() < limit, "not reached within " + STEP_SECONDS + " s: " + what);
            Thread.sleep(10);
        }
    }

    /** Returns when the runner kills no broker any more and all are back: before what is asked of a whole cluster. */
    void whole() throws Exception {
        var path = System.getenv("COMPAT_WHOLE");
        if (path != null) until("every broker is back", () -> Files.exists(Path.of(path)));
    }

    /** Prints the line that the runner collects and leaves the process. */
    void finish() {
        var line = new StringBuilder(
            "COMPAT {\"client\":" + quote(client) + ",\"version\":" + quote(version) + ",\"steps\":{"
        );
        String comma = "";
        boolean failed = false;
        for (var entry : steps.entrySet()) {
            line.append(comma).append(quote(entry.getKey())).append(':').append(quote(entry.getValue()));
            comma = ",";
            failed |= entry.getValue().startsWith("fail");
        }
        System.out.println(line.append("}}"));
        System.out.flush();
        Runtime.getRuntime().halt(failed ? 1 : 0);
    }

    private static String quote(String text) {
        var quoted = new StringBuilder("\"");
        for (char letter : text.toCharArray()) {
            if (letter == '"' || letter == '\\') quoted.append('\\').append(letter);
            else if (letter < ' ') quoted.append(' ');
            else quoted.append(letter);
        }
        return quoted.append('"').toString();
    }
}
