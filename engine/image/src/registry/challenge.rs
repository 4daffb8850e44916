//! `WWW-Authenticate`: `Bearer realm="https://...",service="...",scope="..."`, or `Basic realm="..."`
//! (RFC 9110, section 11.6.1; distribution's token specification).

use std::collections::BTreeMap;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password.
    Basic,
    /// A token, from whom, for what.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first one of a header that is understood.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let mut parameters = parameters(rest);
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => Some(Self::Bearer {
                realm: parameters.remove("realm")?,
                service: parameters.remove("service"),
                scope: parameters.remove("scope"),
            }),
            _ => None,
        }
    }
}

/// `NAME=VALUE` pairs; a value is a word, or stands in quotes with backslashes before what is meant literally.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters
            .next_if(|letter| *letter == ',' || letter.is_whitespace())
            .is_some()
        {}
        let mut name = String::new();
        while let Some(letter) = letters.next_if(|letter| !matches!(letter, '=' | ',')) {
            name.push(letter);
        }
        if letters.next_if_eq(&'=').is_none() {
            return found;
        }
        let mut value = String::new();
        if letters.next_if_eq(&'"').is_some() {
            while let Some(letter) = letters.next() {
                match letter {
                    '"' => break,
                    '\\' => value.extend(letters.next()),
                    other => value.push(other),
                }
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                value.push(letter);
            }
        }
        found.insert(name.trim().to_ascii_lowercase(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_challenge_names_where_a_token_comes_from() {
        let header = r#"Bearer realm="https://auth/token",service="reg",scope="repository:a/b:pull,push",error="invalid_token""#;
        let expected = Challenge::Bearer {
            realm: "https://auth/token".into(),
            service: Some("reg".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::parse(header), Some(expected));
        assert_eq!(Challenge::parse("basic realm=x"), Some(Challenge::Basic));
        let escaped = Challenge::parse(r#"Bearer  realm="a\"b" , service=word"#);
        let Some(Challenge::Bearer { realm, service, .. }) = escaped else {
            panic!()
        };
        assert_eq!((realm.as_str(), service.as_deref()), ("a\"b", Some("word")));
        for wrong in ["", "Bearer", "Bearer service=x", "Negotiate x"] {
            assert_eq!(Challenge::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "\\PC{0,60}") {
            let _ = Challenge::parse(&text);
            let _ = Challenge::parse(&format!("Bearer {text}"));
        }
    }
}
