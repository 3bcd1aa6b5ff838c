//! The vocabulary of message shapes: fields with the versions they exist in.

/// The shape of a message, or of a struct within one.
#[derive(Debug)]
pub(super) struct Shape {
    /// Fields in order of the wire.
    pub(super) fields: &'static [Field],
    /// Tagged fields this broker knows, in order of their tags. Only flexible versions have any.
    pub(super) tags: &'static [Tag],
}

/// One field and the versions that carry it.
#[derive(Debug)]
pub(super) struct Field {
    since: i16,
    until: i16,
    pub(super) kind: Kind,
}

/// One known tagged field.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) tag: u32,
    /// Before this version the tag is unknown, or refused by the decoder.
    pub(super) since: i16,
    pub(super) kind: Kind,
}

/// What a field holds. Lengths and counts are compact in flexible versions.
#[derive(Debug)]
pub(super) enum Kind {
    /// One byte, 0 or 1.
    Bool,
    /// So many bytes.
    Fixed(usize),
    /// Text with its length, perhaps null.
    Text,
    /// Bytes with their length, perhaps null.
    Blob,
    /// Elements with their count, perhaps null.
    Array(&'static Kind),
    /// A struct in place.
    Struct(&'static Shape),
    /// A struct after one byte: 1 when present, anything else when null.
    OptionStruct(&'static Shape),
}

pub(super) const INT8: Kind = Kind::Fixed(1);
pub(super) const INT16: Kind = Kind::Fixed(2);
pub(super) const INT32: Kind = Kind::Fixed(4);
pub(super) const INT64: Kind = Kind::Fixed(8);
pub(super) const UUID: Kind = Kind::Fixed(16);

/// A shape without tagged fields.
pub(super) const fn plain(fields: &'static [Field]) -> Shape {
    Shape { fields, tags: &[] }
}

/// A field of every version.
pub(super) const fn always(kind: Kind) -> Field {
    Field { since: 0, until: i16::MAX, kind }
}

/// A field of `since` and later versions.
pub(super) const fn since(since: i16, kind: Kind) -> Field {
    Field { since, until: i16::MAX, kind }
}

/// A field of versions up to and including `until`.
pub(super) const fn until(until: i16, kind: Kind) -> Field {
    Field { since: 0, until, kind }
}

/// A field of versions `since` to `until`, both included.
pub(super) const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

impl Shape {
    /// Fields that `version` carries.
    pub(super) fn fields(&self, version: i16) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().filter(move |field| field.since <= version && version <= field.until)
    }

    /// Bytes of the smallest instance.
    fn bytes_min(&self, version: i16, flexible: bool) -> usize {
        let fields: usize = self.fields(version).map(|field| field.kind.bytes_min(version, flexible)).sum();
        fields + usize::from(flexible)
    }
}

impl Kind {
    /// Bytes of the smallest instance: at least 1 for everything that stands in an array.
    pub(super) fn bytes_min(&self, version: i16, flexible: bool) -> usize {
        match self {
            Kind::Bool | Kind::OptionStruct(_) => 1,
            Kind::Fixed(bytes) => *bytes,
            Kind::Text => {
                if flexible {
                    1
                } else {
                    2
                }
            }
            Kind::Blob | Kind::Array(_) => {
                if flexible {
                    1
                } else {
                    4
                }
            }
            Kind::Struct(shape) => shape.bytes_min(version, flexible),
        }
    }
}
