//! Shapes that the Compose specification allows for one key: one or many, list or map.

use super::environment::Environment;
use super::values::Text;
use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// A list, or a single value for a list of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value or a list of values")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(OneOrMany(items))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(StrDeserializer::new(text)).map(|item| OneOrMany(vec![item]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(List(PhantomData))
    }
}

/// A program and its arguments: a list, or one line split as a shell would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine(pub Vec<String>);

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = CommandLine;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a command line or a list of arguments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<CommandLine, A::Error> {
                let mut words = Vec::new();
                while let Some(Text(word)) = seq.next_element()? {
                    words.push(word);
                }
                Ok(CommandLine(words))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CommandLine, E> {
                split_words(text).map(CommandLine).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// Splits a line into words: quotes and backslashes as in a shell, nothing is expanded.
pub(super) fn split_words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                let next = letters
                    .next()
                    .ok_or_else(|| format!("`{line}` ends with a backslash"))?;
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("`{line}` has an open quote"));
    }
    words.extend(word);
    Ok(words)
}

/// `KEY=VALUE` pairs, as a list or as a map; in order of key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Variables(pairs) = Variables::deserialize(deserializer)?;
        let all = pairs.into_iter();
        Ok(Self(
            all.map(|(key, value)| (key, value.unwrap_or_default()))
                .collect(),
        ))
    }
}

/// The same, where a name may stand alone: its value is that of the configured environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, Option<String>>);

impl Variables {
    /// All that have a value.
    pub fn resolve(&self, environment: &Environment) -> Pairs {
        let value = |(name, value): (&String, &Option<String>)| {
            let value = value.as_deref().or_else(|| environment.get(name))?;
            Some((name.clone(), value.to_owned()))
        };
        Pairs(self.0.iter().filter_map(value).collect())
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyValues;
        impl<'de> Visitor<'de> for KeyValues {
            type Value = Variables;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map, or a list of KEY=VALUE")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Variables, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some(Text(item)) = seq.next_element()? {
                    match item.split_once('=') {
                        Some((key, value)) => insert(&mut pairs, key, Some(value.to_owned()))?,
                        None => insert(&mut pairs, &item, None)?,
                    }
                }
                Ok(Variables(pairs))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Variables, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some(Text(key)) = map.next_key()? {
                    let value: Option<Text> = map.next_value()?;
                    insert(&mut pairs, &key, value.map(|text| text.0))?;
                }
                Ok(Variables(pairs))
            }
        }
        deserializer.deserialize_any(KeyValues)
    }
}

fn insert<E: de::Error>(
    pairs: &mut BTreeMap<String, Option<String>>,
    key: &str,
    value: Option<String>,
) -> Result<(), E> {
    if key.is_empty() {
        return Err(E::custom("a name is missing before `=`"));
    }
    match pairs.insert(key.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(E::custom(format!("`{key}` stands twice"))),
    }
}

/// A map that keeps the order of the file and refuses a key that stands twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
            type Value = Ordered<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, T)> = Vec::new();
                while let Some(Text(key)) = map.next_key()? {
                    if entries.iter().any(|(other, _)| *other == key) {
                        return Err(de::Error::custom(format!("`{key}` stands twice")));
                    }
                    entries.push((key, map.next_value()?));
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Map(PhantomData))
    }
}
