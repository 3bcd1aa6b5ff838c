import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.TopicDescription;

/** What kafka-clients 2.8 says differently from 4, or lacks. */
final class Versions {

    static final String CLIENT = "java-2.8";

    private Versions() {}

    static Map<String, TopicDescription> describe(Admin admin, Collection<String> topics) throws Exception {
        return admin.describeTopics(topics).all().get(Suite.STEP_SECONDS, TimeUnit.SECONDS);
    }

    static String groupState(Admin admin, String group) throws Exception {
        var described = admin
            .describeConsumerGroups(List.of(group))
            .all()
            .get(Suite.STEP_SECONDS, TimeUnit.SECONDS)
            .get(group);
        return described.state() + "/" + described.members().size();
    }

    /** Steps that only the newer version has. */
    static void more(Suite suite, Admin admin, String topic, int partition, long newest) {
        suite.lacks("group.consumer_protocol", "added in 3.7");
        suite.lacks("offsets_max_timestamp", "added in 3.0");
        suite.lacks("describe.topic_id", "added in 3.1");
    }
}
