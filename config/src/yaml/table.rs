//! What a mapping may hold, said once: messages about unknown keys and the schema for editors are made from it.

use serde_json::Value as Json;

/// A key that is applied, what its value may be, and what it is for (one line, for people who write a document).
pub type Setting = (&'static str, Shape, &'static str);

/// The keys of a mapping.
pub struct Table {
    /// Its name among the schema's definitions; no two tables have the same.
    pub name: &'static str,
    /// Keys that are applied.
    pub settings: &'static [Setting],
    /// A table whose keys it has as well.
    pub common: Option<&'static Table>,
    /// Keys that people write and that are not applied, each with the reason.
    pub unsupported: &'static [(&'static str, &'static str)],
    /// Keys without which the whole is an error. None has a hyphen or an underscore in it: either spelling would do.
    pub required: &'static [&'static str],
}

/// What a value may be. Nothing (null) may stand for each of them.
pub enum Shape {
    /// What [`boolean`](super::boolean) takes.
    Boolean,
    /// What [`string`](super::string) takes: any scalar.
    Text,
    /// What [`integer`](super::integer) takes, from the first to the second.
    Integer(i64, i64),
    /// Text that is one of these.
    Words(&'static [&'static str]),
    /// A list of such values.
    List(&'static Shape),
    /// Such a value or a list of them.
    OneOrMore(&'static Shape),
    /// Such values by names that the document chooses.
    Map(&'static Shape),
    /// A mapping with these keys.
    Table(&'static Table),
    /// A mapping whose keys are those of one of the tables, by the value of the key of this name.
    By(
        &'static str,
        &'static [(&'static [&'static str], &'static Table)],
    ),
    /// The first when it has the key of this name, else the second. A mapping without anything in it is neither.
    Has(&'static str, &'static Shape, &'static Shape),
    /// One of these.
    AnyOf(&'static [Shape]),
    /// What the top-level key of this name takes, once more.
    Again(&'static str),
    /// Anything: it is handed on as it is, or not looked at.
    Any,
    /// Anything as well; what is meant is such a value, which an editor proposes.
    Hint(&'static Shape),
    /// What no other shape says: the schema itself.
    Schema(fn() -> Json),
}

impl Shape {
    /// A whole number of any size.
    pub const INTEGER: Shape = Shape::Integer(i64::MIN, i64::MAX);
    /// A whole number of 32 bits without a sign.
    pub const NUMBER: Shape = Shape::Integer(0, u32::MAX as i64);
    /// What [`strings`](super::strings) takes: text, or a list of it.
    pub const TEXTS: Shape = Shape::OneOrMore(&Shape::Text);
}

impl Table {
    /// A table of these keys.
    pub const fn new(name: &'static str, settings: &'static [Setting]) -> Table {
        Table {
            name,
            settings,
            common: None,
            unsupported: &[],
            required: &[],
        }
    }

    /// With the keys of another one.
    pub const fn with(self, common: &'static Table) -> Table {
        Table {
            common: Some(common),
            ..self
        }
    }

    /// With keys that are not applied.
    pub const fn unsupported(self, unsupported: &'static [(&'static str, &'static str)]) -> Table {
        Table {
            unsupported,
            ..self
        }
    }

    /// With keys that must be there.
    pub const fn required(self, required: &'static [&'static str]) -> Table {
        Table { required, ..self }
    }

    /// All keys that are applied.
    pub fn all(&self) -> impl Iterator<Item = &'static Setting> {
        let common = self.common.map_or(&[][..], |common| common.settings);
        common.iter().chain(self.settings)
    }

    /// All keys that are not, with the reasons.
    pub fn all_unsupported(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        let common = self.common.map_or(&[][..], |common| common.unsupported);
        common.iter().chain(self.unsupported)
    }
}
