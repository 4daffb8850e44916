//! Variables in service definitions: the Compose specification's interpolation, from the machine's own `.env` file.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Values that stand inside one another no deeper than this.
const DEPTH_MAX: usize = 8;

/// What `$NAME` in a definition stands for.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names that were used and are not set.
    missing: RefCell<BTreeSet<String>>,
}

impl Environment {
    /// Reads lines of `NAME=VALUE`; `#` begins a comment, a value may stand in quotes.
    ///
    /// # Errors
    /// The number of the first line that is none, and why.
    pub fn parse(text: &str) -> Result<Self, (u64, String)> {
        let mut variables = BTreeMap::new();
        for (number, line) in (1_u64..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| (number, format!("`{line}` is not NAME=VALUE")))?;
            let name = name.trim_end();
            if !is_name(name) {
                return Err((number, format!("`{name}` is not the name of a variable")));
            }
            variables.insert(name.to_owned(), unquoted(value.trim()).to_owned());
        }
        Ok(Self {
            variables,
            missing: RefCell::default(),
        })
    }

    /// Names that were used so far, are not set and have no default: they stand for nothing.
    pub fn missing(&self) -> BTreeSet<String> {
        self.missing.borrow().clone()
    }

    /// All that is set.
    pub fn into_variables(self) -> BTreeMap<String, String> {
        self.variables
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Puts the values in: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`,
    /// `${NAME?message}`, `${NAME:+instead}`, `${NAME+instead}`; `$$` is a dollar (Compose specification, section
    /// "Interpolation").
    ///
    /// # Errors
    /// For a person: a form that is none of these, or the message of a variable that is needed.
    pub fn substitute(&self, text: &str) -> Result<String, String> {
        self.substitute_within(text, 0)
    }

    fn substitute_within(&self, text: &str, depth: usize) -> Result<String, String> {
        if depth > DEPTH_MAX {
            return Err(format!("`{text}`: too many variables inside one another"));
        }
        let (mut result, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('$') {
            result.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let end = after
                .find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
                .unwrap_or(after.len());
            if let Some(plain) = after.strip_prefix('$') {
                result.push('$');
                rest = plain;
            } else if let Some(inner) = after.strip_prefix('{') {
                let close = closing(inner)
                    .ok_or_else(|| format!("`{text}`: there is no `}}` to this `${{`"))?;
                result.push_str(&self.braced(&inner[..close], depth)?);
                rest = &inner[close + 1..];
            } else if is_name(&after[..end]) {
                result.push_str(&self.value(&after[..end]));
                rest = &after[end..];
            } else {
                return Err(format!(
                    "`{text}`: after `$` comes a name, `{{` or a second `$`"
                ));
            }
        }
        result.push_str(rest);
        Ok(result)
    }

    fn value(&self, name: &str) -> String {
        match self.get(name) {
            Some(value) => value.to_owned(),
            None => {
                self.missing.borrow_mut().insert(name.to_owned());
                String::new()
            }
        }
    }

    /// What stands between `${` and `}`.
    fn braced(&self, inner: &str, depth: usize) -> Result<String, String> {
        let end = inner
            .find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
            .unwrap_or(inner.len());
        let (name, rest) = inner.split_at(end);
        if !is_name(name) {
            return Err(format!(
                "`${{{inner}}}`: `{name}` is not the name of a variable"
            ));
        }
        // With a colon, a variable that is set to nothing counts as not set.
        let (colon, operator) = match rest.strip_prefix(':') {
            Some(operator) => (true, operator),
            None => (false, rest),
        };
        let value = self.get(name).filter(|value| !colon || !value.is_empty());
        let mut letters = operator.chars();
        match (letters.next(), value) {
            (None, _) if !colon => Ok(self.value(name)),
            (Some('-' | '?'), Some(value)) => Ok(value.to_owned()),
            (Some('-'), None) => self.substitute_within(letters.as_str(), depth + 1),
            (Some('?'), None) => Err(match letters.as_str() {
                "" => format!("the variable {name} is not set"),
                message => format!("the variable {name} is not set: {message}"),
            }),
            (Some('+'), Some(_)) => self.substitute_within(letters.as_str(), depth + 1),
            (Some('+'), None) => Ok(String::new()),
            _ => Err(format!(
                "`${{{inner}}}`: after the name comes one of :- - :? ? :+ +"
            )),
        }
    }
}

/// Where the brace is that ends what begins here.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_u32;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match letter {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        before = letter;
    }
    None
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    let begins = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    begins && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| {
        value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
    };
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment() -> Environment {
        Environment::parse("# ours\nNAME=web\nexport PORT=80\nEMPTY=\nQUOTED=\"a b\"\n\n").unwrap()
    }

    #[test]
    fn every_form_of_a_variable_is_understood() {
        let environment = environment();
        for (text, expected) in [
            ("plain", "plain"),
            ("$NAME:$PORT", "web:80"),
            ("${NAME}s", "webs"),
            ("$$NAME and $$$NAME", "$NAME and $web"),
            ("${QUOTED}", "a b"),
            ("${NO:-x}${EMPTY:-y}${EMPTY-z}", "xy"),
            ("${NO-${ALSO:-${NAME}}}!", "web!"),
            ("${NAME:+yes}${NO:+no}${EMPTY:+no}${EMPTY+set}", "yesset"),
            ("${NAME:?needed}${PORT?}", "web80"),
            ("a${UNSET}b$UNSET_TOO", "ab"),
        ] {
            assert_eq!(
                environment.substitute(text).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
        let missing: Vec<String> = environment.missing().into_iter().collect();
        assert_eq!(missing, ["UNSET", "UNSET_TOO"]);
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        let environment = environment();
        for (text, part) in [
            ("$", "after `$`"),
            ("cost: $5", "after `$`"),
            ("${NAME", "no `}`"),
            ("${}", "not the name"),
            ("${1}", "not the name"),
            ("${NAME:}", "after the name"),
            ("${NAME!x}", "after the name"),
            ("${NO:?say where}", "NO is not set: say where"),
            ("${EMPTY:?}", "EMPTY is not set"),
        ] {
            let error = environment.substitute(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(Environment::parse("A=1\nnonsense\n").unwrap_err().0, 2);
        assert_eq!(Environment::parse("1A=1\n").unwrap_err().0, 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_text_without_a_dollar_stays(text in "[ -~é]{0,40}") {
            let environment = environment();
            let result = environment.substitute(&text);
            if !text.contains('$') {
                prop_assert_eq!(result, Ok(text));
            }
        }
    }
}
