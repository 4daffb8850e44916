//! Flat JSON objects: one level, values that are strings or integers. All that the control protocol needs,
//! so that PID 1 carries no general parser. Strict: no duplicate keys, no floats, nothing after the object.

use super::Malformed;
use std::fmt::Write as _;

/// A value of a flat object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A JSON string, unescaped.
    Text(String),
    /// A JSON number without fraction or exponent.
    Integer(i64),
}

/// A flat object, in the order of its keys on the wire.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Object {
    fields: Vec<(String, Value)>,
}

impl Object {
    /// Adds a string field.
    pub(super) fn text(mut self, key: &str, value: &str) -> Self {
        self.fields
            .push((key.to_owned(), Value::Text(value.to_owned())));
        self
    }

    /// Adds an integer field.
    pub(super) fn integer(mut self, key: &str, value: i64) -> Self {
        self.fields.push((key.to_owned(), Value::Integer(value)));
        self
    }

    /// Takes a field out, so that what is left over can be refused.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.fields.iter().position(|(name, _)| name == key)?;
        Some(self.fields.remove(at).1)
    }

    /// Takes a string field that must be there.
    pub(super) fn take_text(&mut self, key: &'static str) -> Result<String, Malformed> {
        match self.take(key) {
            Some(Value::Text(text)) => Ok(text),
            Some(Value::Integer(_)) => Err(Malformed::Kind(key)),
            None => Err(Malformed::Missing(key)),
        }
    }

    /// Takes an integer field that must be there and fit the type asked for.
    pub(super) fn take_integer<T: TryFrom<i64>>(
        &mut self,
        key: &'static str,
    ) -> Result<T, Malformed> {
        match self.take(key) {
            Some(Value::Integer(number)) => T::try_from(number).map_err(|_| Malformed::Range(key)),
            Some(Value::Text(_)) => Err(Malformed::Kind(key)),
            None => Err(Malformed::Missing(key)),
        }
    }

    /// Succeeds when every field was taken.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        match self.fields.into_iter().next() {
            Some((key, _)) => Err(Malformed::Unknown(key)),
            None => Ok(()),
        }
    }

    /// The object as one line of JSON, without a newline.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = String::from("{");
        for (index, (key, value)) in self.fields.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            quote(key, &mut out);
            out.push(':');
            match value {
                Value::Text(text) => quote(text, &mut out),
                Value::Integer(number) => out.push_str(&number.to_string()),
            }
        }
        out.push('}');
        out.into_bytes()
    }

    /// Reads an object; the whole input must be one.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8)?;
        let mut scanner = Scanner { rest: text };
        let object = scanner.object()?;
        scanner.space();
        if scanner.rest.is_empty() {
            Ok(object)
        } else {
            Err(Malformed::Syntax)
        }
    }
}

/// Appends `text` as a JSON string (RFC 8259, section 7).
pub(super) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if u32::from(control) < 0x20 => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn next(&mut self) -> Result<char, Malformed> {
        let mut characters = self.rest.chars();
        let first = characters.next().ok_or(Malformed::Syntax)?;
        self.rest = characters.as_str();
        Ok(first)
    }

    fn token(&mut self, wanted: char) -> Result<(), Malformed> {
        self.space();
        if self.next()? == wanted {
            Ok(())
        } else {
            Err(Malformed::Syntax)
        }
    }

    fn object(&mut self) -> Result<Object, Malformed> {
        let mut object = Object::default();
        self.token('{')?;
        self.space();
        if self.rest.starts_with('}') {
            self.token('}')?;
            return Ok(object);
        }
        loop {
            self.token('"')?;
            let key = self.string()?;
            self.token(':')?;
            self.space();
            let value = self.value()?;
            if object.fields.iter().any(|(name, _)| *name == key) {
                return Err(Malformed::Duplicate(key));
            }
            object.fields.push((key, value));
            self.space();
            match self.next()? {
                ',' => {}
                '}' => return Ok(object),
                _ => return Err(Malformed::Syntax),
            }
        }
    }

    fn value(&mut self) -> Result<Value, Malformed> {
        if let Some(rest) = self.rest.strip_prefix('"') {
            self.rest = rest;
            return self.string().map(Value::Text);
        }
        let end = self
            .rest
            .find(|c: char| c != '-' && !c.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at_checked(end).ok_or(Malformed::Syntax)?;
        let leading_zero = |number: &str| number.len() > 1 && number.starts_with('0');
        if leading_zero(digits.strip_prefix('-').unwrap_or(digits)) {
            return Err(Malformed::Syntax);
        }
        let number = digits.parse().map_err(|_| Malformed::Syntax)?;
        self.rest = rest;
        Ok(Value::Integer(number))
    }

    /// The rest of a string whose opening quote was read.
    fn string(&mut self) -> Result<String, Malformed> {
        let mut text = String::new();
        loop {
            match self.next()? {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                control if u32::from(control) < 0x20 => return Err(Malformed::Syntax),
                other => text.push(other),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        Ok(match self.next()? {
            quoted @ ('"' | '\\' | '/') => quoted,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.unit()?;
                let second = if (0xd800..0xdc00).contains(&first) {
                    if self.next()? != '\\' || self.next()? != 'u' {
                        return Err(Malformed::Syntax);
                    }
                    Some(self.unit()?)
                } else {
                    None
                };
                char::decode_utf16(std::iter::once(first).chain(second))
                    .next()
                    .and_then(Result::ok)
                    .ok_or(Malformed::Syntax)?
            }
            _ => return Err(Malformed::Syntax),
        })
    }

    fn unit(&mut self) -> Result<u16, Malformed> {
        let mut unit: u16 = 0;
        for _ in 0..4 {
            let digit = self
                .next()?
                .to_digit(16)
                .and_then(|digit| u16::try_from(digit).ok());
            unit = (unit << 4) | digit.ok_or(Malformed::Syntax)?;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_of_every_kind_are_understood() {
        let object =
            Object::decode(br#" { "a" : "\u0041\ud83d\ude00\n\/\\\"\t" , "b" : -12 } "#).unwrap();
        assert_eq!(
            object,
            Object::default()
                .text("a", "A😀\n/\\\"\t")
                .integer("b", -12)
        );
    }

    #[test]
    fn what_is_not_one_flat_object_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            "{}x",
            "{\"a\":1,}",
            "{\"a\":{}}",
            "{\"a\":1.5}",
            "{\"a\":true}",
            "{\"a\":01}",
            "{\"a\"}",
            "{\"a\":\"\\ud83d\"}",
            "{\"a\":\"\\udc00\"}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":1,\"a\":2}",
            "{\"a\":\"x",
            "{\"a\":--1}",
            "{\"a\":99999999999999999999}",
        ] {
            assert!(Object::decode(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(Object::decode(&[0xff]), Err(Malformed::Utf8));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in any::<String>(), key in "[a-z]{1,9}", number in any::<i64>()) {
            let object = Object::default().text(&key, &text).integer("0", number);
            prop_assert_eq!(Object::decode(&object.encode()).unwrap(), object);
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Object::decode(&bytes);
        }
    }
}
