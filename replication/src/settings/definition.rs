//! What is known about one configuration key: `org.apache.kafka.common.config.ConfigDef.ConfigKey`, plus what
//! Stonelog does with it.
//!
//! Definitions are constants. The builder functions exist so that a table reads as one line per fact.

/// A key's type, with Kafka's wire code in DescribeConfigs (`DescribeConfigsResponse.ConfigType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Boolean,
    /// Text.
    String,
    /// 32 bits, signed.
    Int,
    /// 16 bits, signed.
    Short,
    /// 64 bits, signed.
    Long,
    /// 64 bits, floating.
    Double,
    /// Texts separated by commas.
    List,
    /// A Java class name; Stonelog loads none.
    Class,
    /// Text that is never shown.
    Password,
}

impl Kind {
    /// The code in a DescribeConfigs response.
    pub fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }

    /// Kafka's name of the type, as its error messages spell it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }
}

/// Which values of a key's type are legal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constraint {
    /// All of them.
    Any,
    /// Whole numbers not below the bound.
    AtLeast(i64),
    /// Whole numbers within both bounds, inclusive.
    Between(i64, i64),
    /// Numbers within both bounds, inclusive.
    Ratio(f64, f64),
    /// One of these texts, in this spelling.
    OneOf(&'static [&'static str]),
    /// A list holding only these texts.
    ListOf(&'static [&'static str]),
    /// gzip's levels: 1 to 9, or -1 for the library's choice.
    GzipLevel,
    /// `*`, `none`, or a list of `partition:broker` pairs.
    ThrottledReplicas,
    /// Time that must pass: -1 for ever, or at least 1.
    ForeverOrAtLeastOne,
}

/// How much a key matters, by Kafka's own judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Most installations set it.
    High,
    /// Some do.
    Medium,
    /// Few do.
    Low,
}

/// Whether a broker's key may be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// Only by a restart.
    ReadOnly,
    /// For one broker at a time.
    PerBroker,
    /// For one broker, or as the cluster's default.
    ClusterWide,
}

/// What a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A topic. Without an override the first of the broker's keys that is set decides, in this order.
    Topic {
        /// The broker's synonyms, in Kafka's order (`ServerTopicConfigSynonyms`); empty when it has none.
        broker_keys: &'static [&'static str],
    },
    /// A broker.
    Broker(Dynamic),
    /// A group.
    Group,
}

/// What Stonelog does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Honour {
    /// It has Kafka's effect.
    Honoured,
    /// It has an effect of its own, said here.
    Mapped(&'static str),
    /// Any value but the default is refused, for this reason.
    Refused(&'static str),
    /// It is accepted and has no effect, for this reason, which is said once at start-up.
    Inert(&'static str),
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The key.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The default as text; `None` where Kafka's is null or ours depends on the cluster.
    pub default: Option<&'static str>,
    /// Which values are legal.
    pub constraint: Constraint,
    /// How much it matters.
    pub importance: Importance,
    /// What it means, in one or two sentences.
    pub documentation: &'static str,
    /// What it belongs to.
    pub scope: Scope,
    /// What Stonelog does with it.
    pub honour: Honour,
}

impl Definition {
    /// Whether the value must never be shown.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// The broker's keys that stand in for this topic key, in order; empty for other scopes.
    pub fn broker_keys(&self) -> &'static [&'static str] {
        match self.scope {
            Scope::Topic { broker_keys } => broker_keys,
            Scope::Broker(_) | Scope::Group => &[],
        }
    }

    /// Whether a running broker refuses to change it.
    pub fn is_read_only(&self) -> bool {
        self.scope == Scope::Broker(Dynamic::ReadOnly)
    }

    const fn new(name: &'static str, kind: Kind, default: Option<&'static str>) -> Definition {
        Definition {
            name,
            kind,
            default,
            constraint: Constraint::Any,
            importance: Importance::Medium,
            documentation: "",
            scope: Scope::Broker(Dynamic::ReadOnly),
            honour: Honour::Honoured,
        }
    }

    /// A broker's boolean key.
    pub const fn boolean(name: &'static str, default: &'static str) -> Definition {
        Definition::new(name, Kind::Boolean, Some(default))
    }

    /// A broker's 32-bit key.
    pub const fn int(name: &'static str, default: &'static str) -> Definition {
        Definition::new(name, Kind::Int, Some(default))
    }

    /// A broker's 16-bit key.
    pub const fn short(name: &'static str, default: &'static str) -> Definition {
        Definition::new(name, Kind::Short, Some(default))
    }

    /// A broker's 64-bit key.
    pub const fn long(name: &'static str, default: &'static str) -> Definition {
        Definition::new(name, Kind::Long, Some(default))
    }

    /// A broker's floating key.
    pub const fn double(name: &'static str, default: &'static str) -> Definition {
        Definition::new(name, Kind::Double, Some(default))
    }

    /// A broker's text key.
    pub const fn text(name: &'static str, default: &'static str) -> Definition {
        Definition::new(name, Kind::String, Some(default))
    }

    /// A broker's list key.
    pub const fn list(name: &'static str, default: &'static str) -> Definition {
        Definition::new(name, Kind::List, Some(default))
    }

    /// A broker's key that is null until it is set.
    pub const fn unset(name: &'static str, kind: Kind) -> Definition {
        Definition::new(name, kind, None)
    }

    /// With a lower bound.
    pub const fn at_least(mut self, bound: i64) -> Definition {
        self.constraint = Constraint::AtLeast(bound);
        self
    }

    /// With both bounds.
    pub const fn between(mut self, low: i64, high: i64) -> Definition {
        self.constraint = Constraint::Between(low, high);
        self
    }

    /// With a constraint of its own.
    pub const fn checked(mut self, constraint: Constraint) -> Definition {
        self.constraint = constraint;
        self
    }

    /// With high importance.
    pub const fn high(mut self) -> Definition {
        self.importance = Importance::High;
        self
    }

    /// With low importance.
    pub const fn low(mut self) -> Definition {
        self.importance = Importance::Low;
        self
    }

    /// With its meaning.
    pub const fn says(mut self, documentation: &'static str) -> Definition {
        self.documentation = documentation;
        self
    }

    /// A topic's key with the broker's synonyms.
    pub const fn topic(mut self, broker_keys: &'static [&'static str]) -> Definition {
        self.scope = Scope::Topic { broker_keys };
        self
    }

    /// A group's key.
    pub const fn group(mut self) -> Definition {
        self.scope = Scope::Group;
        self
    }

    /// May change for one broker at a time.
    pub const fn per_broker(mut self) -> Definition {
        self.scope = Scope::Broker(Dynamic::PerBroker);
        self
    }

    /// May change for the whole cluster.
    pub const fn cluster_wide(mut self) -> Definition {
        self.scope = Scope::Broker(Dynamic::ClusterWide);
        self
    }

    /// Has an effect of its own.
    pub const fn mapped(mut self, how: &'static str) -> Definition {
        self.honour = Honour::Mapped(how);
        self
    }

    /// Refused unless it holds the default.
    pub const fn refused(mut self, why: &'static str) -> Definition {
        self.honour = Honour::Refused(why);
        self
    }

    /// Accepted without effect.
    pub const fn inert(mut self, why: &'static str) -> Definition {
        self.honour = Honour::Inert(why);
        self
    }
}
