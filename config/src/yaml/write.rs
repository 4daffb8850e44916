//! From nodes back to text, in block style, for YAML 1.2 as other programs read it.

use super::{Node, Scalar, Value};
use std::fmt::Write;

/// The text of a document. What YAML 1.1 alone takes for a boolean or an octal number is written so that all readers
/// take it for the same.
pub fn write(node: &Node) -> String {
    let mut text = String::new();
    write_value(node, 0, &mut text);
    text
}

/// Writes a value after its key or dash: on the same line, or on lines of its own.
fn write_value(node: &Node, indent: usize, text: &mut String) {
    match &node.value {
        Value::Scalar(scalar) => {
            let _ = writeln!(text, "{}", scalar_text(scalar));
        }
        Value::Sequence(items) if items.is_empty() => text.push_str("[]\n"),
        Value::Mapping(entries) if entries.is_empty() => text.push_str("{}\n"),
        Value::Sequence(items) => {
            begin_lines(text);
            for item in items {
                let _ = write!(text, "{:indent$}- ", "");
                write_value(item, indent + 2, text);
            }
        }
        Value::Mapping(entries) => {
            begin_lines(text);
            for (key, value) in entries {
                let _ = write!(text, "{:indent$}{}: ", "", quoted_unless_plain(&key.text));
                write_value(value, indent + 2, text);
            }
        }
    }
}

/// A collection does not stand behind its key or dash.
fn begin_lines(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}

fn scalar_text(scalar: &Scalar) -> String {
    if scalar.is_null() {
        return "null".to_owned();
    }
    if scalar.plain {
        if let Some(number) = scalar.as_integer() {
            // As it stands: whether `0755` is octal is for those who read it.
            let is_decimal = number.to_string() == scalar.text;
            return if is_decimal {
                scalar.text.clone()
            } else {
                quoted(&scalar.text)
            };
        }
        if let Some(truth) = scalar.as_bool() {
            return truth.to_string();
        }
    }
    quoted_unless_plain(&scalar.text)
}

/// Letters that mean something to no reader, whatever they stand next to.
fn quoted_unless_plain(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_./".contains(letter);
    let is_word = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|letter| plain(letter) || letter == '-');
    let means_something = matches!(
        text.to_ascii_lowercase().as_str(),
        "yes" | "no" | "true" | "false" | "on" | "off" | "null" | "y" | "n"
    );
    if is_word && !means_something {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// In double quotes (YAML 1.2.2, section 7.3.1).
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_means_what_was_read() {
        let text = "a:\n  - {b: yes, c: 'yes', d: 0755, e: 7}\n  - [x, \"line\\nbreak\"]\n  - - deep\nempty: {}\nnone: ~\nurl: http://x/?a=#b\n'a b': \"\"\n";
        let written = write(&parse(text).unwrap().root);
        assert_eq!(
            written,
            "a:\n  -\n    b: true\n    c: \"yes\"\n    d: \"0755\"\n    e: 7\n  -\n    - x\n    - \"line\\nbreak\"\n  -\n    - deep\nempty: {}\nnone: null\nurl: \"http://x/?a=#b\"\n\"a b\": \"\"\n"
        );
    }

    proptest! {
        #[test]
        fn text_survives(value in "\\PC{0,30}", key in "[ -~]{1,10}") {
            let node = |text: &str| Node {
                position: crate::Position::new(1, 1),
                value: Value::Scalar(Scalar { text: text.to_owned(), plain: false, binary: false }),
            };
            let document = Node {
                value: Value::Mapping(vec![(super::super::Key { text: key.clone(), position: crate::Position::new(1, 1) }, node(&value))]),
                ..node("")
            };
            let read = parse(&write(&document)).unwrap().root;
            let Value::Mapping(entries) = read.value else { panic!() };
            prop_assert_eq!(&entries[0].0.text, &key);
            let Value::Scalar(scalar) = &entries[0].1.value else { panic!() };
            prop_assert_eq!(&scalar.text, &value);
        }
    }
}
