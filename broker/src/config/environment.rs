//! Environment variables as the common container images name them.
//!
//! `KAFKA_LOG_DIRS` (Apache's and Confluent's images) and `KAFKA_CFG_LOG_DIRS` (Bitnami's) both mean `log.dirs`. A
//! single underscore is a dot. The images disagree on two and three: Confluent's read `__` as `-` and `___` as `_`,
//! Apache's the other way round. Whichever reading gives a known key is taken, Confluent's first.

/// What a variable is to the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// It sets this key.
    Setting(String),
    /// It is the wished cluster id (`CLUSTER_ID`, `KAFKA_KRAFT_CLUSTER_ID`).
    ClusterId,
    /// It belongs to the images' start scripts or the Java machine.
    Skipped,
    /// It has nothing to do with this program.
    Foreign,
    /// It begins with `STONELOG_`, which is reserved, and is not known.
    Reserved,
}

/// Variables of the images' own scripts, of the Java machine, and of orchestrators. A trailing `*` matches any rest.
const SKIPPED: &[&str] = &[
    "KAFKA_ADVERTISED_HOST_NAME",
    "KAFKA_ADVERTISED_PORT",
    "KAFKA_BASE_DIR",
    "KAFKA_CERTIFICATE_PASSWORD",
    "KAFKA_CLIENT_*",
    "KAFKA_CLOSE_TIMEOUT",
    "KAFKA_CONF_DIR",
    "KAFKA_CONTROLLER_PASSWORD",
    "KAFKA_CONTROLLER_USER",
    "KAFKA_CREATE_TOPICS",
    "KAFKA_DAEMON_*",
    "KAFKA_DATA_DIR",
    "KAFKA_DEBUG",
    "KAFKA_DIR",
    "KAFKA_ENABLE_KRAFT",
    "KAFKA_EXTRA_FLAGS",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_GPG_KEY",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_INITIAL_CONTROLLERS",
    "KAFKA_INTER_BROKER_PASSWORD",
    "KAFKA_INTER_BROKER_USER",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_KRAFT_BOOTSTRAP_SCRAM_USERS",
    "KAFKA_LOG4J_CMD_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_MODE",
    "KAFKA_MOUNTED_CONF_DIR",
    "KAFKA_NATIVE_*",
    "KAFKA_OPTS",
    "KAFKA_PORT",
    "KAFKA_PORT_*",
    "KAFKA_SERVICE_*",
    "KAFKA_SKIP_KRAFT_STORAGE_INIT",
    "KAFKA_TLS_*",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_URL",
    "KAFKA_USER",
    "KAFKA_VERSION",
    "KAFKA_VOLUME_DIR",
    "KAFKA_ZOOKEEPER_PROTOCOL",
];

/// Says what a variable is; `is_known` tells known keys from others.
pub fn classify(name: &str, is_known: impl Fn(&str) -> bool) -> Variable {
    if matches!(name, "CLUSTER_ID" | "KAFKA_KRAFT_CLUSTER_ID" | "KAFKA_CLUSTER_ID") {
        return Variable::ClusterId;
    }
    if name.starts_with("STONELOG_") {
        return Variable::Reserved;
    }
    if let Some(rest) = name.strip_prefix("KAFKA_CFG_") {
        return Variable::Setting(key_of(rest, is_known));
    }
    let Some(rest) = name.strip_prefix("KAFKA_") else { return Variable::Foreign };
    if rest.is_empty() {
        return Variable::Foreign;
    }
    let skipped = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    if SKIPPED.iter().any(|pattern| skipped(pattern)) {
        return Variable::Skipped;
    }
    Variable::Setting(key_of(rest, is_known))
}

/// The key a variable's name stands for, without its prefix.
fn key_of(rest: &str, is_known: impl Fn(&str) -> bool) -> String {
    let confluent = translate(rest, '-', '_');
    let apache = translate(rest, '_', '-');
    if !is_known(&confluent) && is_known(&apache) { apache } else { confluent }
}

fn translate(rest: &str, double: char, triple: char) -> String {
    let mut key = String::with_capacity(rest.len());
    let mut underscores = 0;
    let flush = |key: &mut String, underscores: &mut usize| {
        while *underscores > 0 {
            let (character, used) = match *underscores {
                1 => ('.', 1),
                2 => (double, 2),
                _ => (triple, 3),
            };
            key.push(character);
            *underscores -= used;
        }
    };
    for character in rest.chars() {
        if character == '_' {
            underscores += 1;
        } else {
            flush(&mut key, &mut underscores);
            key.push(character.to_ascii_lowercase());
        }
    }
    flush(&mut key, &mut underscores);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str) -> Variable {
        Variable::Setting(key.to_owned())
    }

    #[test]
    fn underscores_become_dots_dashes_and_underscores() {
        let any = |_: &str| false;
        assert_eq!(classify("KAFKA_LOG_RETENTION_HOURS", any), setting("log.retention.hours"));
        assert_eq!(classify("KAFKA_CFG_ADVERTISED_LISTENERS", any), setting("advertised.listeners"));
        assert_eq!(classify("KAFKA_ABC__DEF___GHI", any), setting("abc-def_ghi"));
    }

    #[test]
    fn the_reading_that_gives_a_known_key_is_taken() {
        assert_eq!(classify("KAFKA_ABC__DEF", |key| key == "abc_def"), setting("abc_def"));
        assert_eq!(classify("KAFKA_ABC___DEF", |key| key == "abc_def"), setting("abc_def"));
    }

    #[test]
    fn the_images_own_variables_are_skipped() {
        for name in ["KAFKA_HEAP_OPTS", "KAFKA_JMX_PORT", "KAFKA_SERVICE_PORT_CLIENT", "KAFKA_PORT_9092_TCP_ADDR"] {
            assert_eq!(classify(name, |_| false), Variable::Skipped, "{name}");
        }
    }

    #[test]
    fn cluster_id_and_other_programs_variables_are_told_apart() {
        assert_eq!(classify("CLUSTER_ID", |_| false), Variable::ClusterId);
        assert_eq!(classify("KAFKA_KRAFT_CLUSTER_ID", |_| false), Variable::ClusterId);
        assert_eq!(classify("PATH", |_| false), Variable::Foreign);
        assert_eq!(classify("STONELOG_X", |_| false), Variable::Reserved);
    }
}
