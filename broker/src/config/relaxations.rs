//! Every line that relaxes a default of the durability promise, in words, for the banner (DESIGN.md §1).

use super::reader::Reader;

pub(super) fn relaxations(reader: &Reader<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(setting) = reader.set("log.flush.interval.messages")
        && reader.whole("log.flush.interval.messages") > 1
    {
        lines.push(format!(
            "{}: topics without flush.messages of their own are relaxed: a power failure may lose acknowledged records",
            setting.cited()
        ));
    }
    if let Some(setting) = reader.set("unclean.leader.election.enable")
        && reader.boolean("unclean.leader.election.enable")
    {
        let effect =
            "on relaxed topics a replica that misses acknowledged records may lead; strict topics do not follow it";
        lines.push(format!("{}: {effect}", setting.cited()));
    }
    let factor = reader.factor("default.replication.factor");
    if let Some(setting) = reader.set("min.insync.replicas")
        && reader.whole("min.insync.replicas") == 1
        && factor.is_none_or(|factor| factor > 2)
    {
        let effect = "on topics of three and more replicas a record may be acknowledged while only one copy exists";
        lines.push(format!("{}: {effect}", setting.cited()));
    }
    for (key, what) in [
        ("default.replication.factor", "new topics keep fewer copies"),
        ("offsets.topic.replication.factor", "committed offsets keep fewer copies"),
    ] {
        if let Some(setting) = reader.set(key)
            && reader.factor(key).is_some_and(|factor| factor < 3)
        {
            lines.push(format!(
                "{}: {what} than the three they get as soon as there are three brokers",
                setting.cited()
            ));
        }
    }
    lines
}
