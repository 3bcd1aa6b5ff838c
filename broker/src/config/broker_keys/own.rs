//! Stonelog's own keys. There are few: Kafka's names carry what Kafka has a name for.

use stonelog_replication::settings::{Definition, Kind};

pub(super) static KEYS: &[Definition] = &[
    Definition::unset("stonelog.cluster.secret.file", Kind::String).says(
        "A file with the cluster's secret: at least 16 bytes, random, the same on every node, read once at the start; a \
         line end at its end does not count. Nodes prove to each other that they know it. Without one every address of the cluster must be on the loopback interface.",
    ),
    Definition::unset("stonelog.free.bytes.min", Kind::Long).at_least(0).says(
        "Free bytes of a log directory's file system below which producers are refused with KAFKA_STORAGE_ERROR; \
         what is left is for internal topics and for what was appended before. Unset means two journal files.",
    ),
    Definition::long("stonelog.journal.bytes", "1073741824").at_least(16_777_216).says(
        "The most bytes the journal of one log directory may take before appends wait for segments to be written. It \
         bounds the time a start takes.",
    ),
    Definition::long("stonelog.journal.file.bytes", "67108864").between(1_048_576, 1_073_741_824).says(
        "The size of one journal file, in bytes; at most a quarter of stonelog.journal.bytes. It \
         must hold the largest batch.",
    ),
    Definition::int("stonelog.lanes", "0")
        .between(0, 1024)
        .says("Threads that serve connections and partitions; 0 means one for each core."),
    Definition::long("stonelog.scrub.interval.ms", "604800000").at_least(0).says(
        "How often every closed segment is read again from the device and checked, in milliseconds, as far as \
         stonelog.scrub.max.bytes.per.second allows; 0 turns that off.",
    ),
    Definition::long("stonelog.scrub.max.bytes.per.second", "33554432")
        .at_least(65_536)
        .says("The most that the scrub reads, in bytes per second for each log directory."),
    Definition::long("stonelog.tail.memory.bytes", "67108864").at_least(8_388_608).says(
        "Memory for records that are in segments already and were written a moment ago, in bytes; more than \
         this is let go, and a few seconds after the last one all of it. Records that only the journal holds are \
         bounded by half of stonelog.journal.bytes.",
    ),
];
