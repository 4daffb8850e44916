//! What a scalar means in YAML 1.1 (<https://yaml.org/type/>).

/// A scalar as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scalar {
    /// Its text, with quotes and escapes resolved.
    pub text: String,
    /// Written without quotes and not as a block: only then it can be a number, a boolean or null.
    pub plain: bool,
    /// Tagged `!!binary`: its text is base64.
    pub binary: bool,
}

impl Scalar {
    /// Whether it is null: nothing, `~` or `null`, unquoted.
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// The boolean it means: `yes`, `no`, `on`, `off`, `true`, `false`. Quotes are forgiven, as cloud-init does.
    pub fn as_bool(&self) -> Option<bool> {
        match self.text.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" => Some(true),
            "no" | "false" | "off" => Some(false),
            _ => None,
        }
    }

    /// The integer it means when it is unquoted: decimal, `0755` and `0o755` octal, `0x` hexadecimal, `0b` binary, with `_`
    /// between digits.
    pub fn as_integer(&self) -> Option<i64> {
        if !self.plain {
            return None;
        }
        let text = self.text.replace('_', "");
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(&text)),
        };
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let value = match digits.as_bytes() {
            [b'0', b'x' | b'X', ..] => i64::from_str_radix(digits.get(2..)?, 16),
            [b'0', b'o', ..] => i64::from_str_radix(digits.get(2..)?, 8),
            [b'0', b'b', ..] => i64::from_str_radix(digits.get(2..)?, 2),
            [b'0', _, ..] => i64::from_str_radix(digits, 8),
            _ => digits.parse(),
        };
        value
            .ok()
            .map(|value| if negative { -value } else { value })
    }

    /// The integer that YAML 1.1 takes it for: no `0o`, and with sexagesimal numbers (`1:30` is 90).
    pub fn as_strict_integer(&self) -> Option<i64> {
        if !self.plain {
            return None;
        }
        let unsigned = self.text.trim_start_matches(['+', '-']);
        if unsigned.starts_with("0o") {
            return None;
        }
        if !unsigned.contains(':') {
            return self.as_integer();
        }
        let negative = self.text.starts_with('-');
        let mut value: i64 = 0;
        for (index, part) in unsigned.split(':').enumerate() {
            let digits = part.replace('_', "");
            let number: i64 = digits.parse().ok()?;
            let valid = match index {
                0 => digits.starts_with(|c: char| ('1'..='9').contains(&c)),
                _ => part.len() <= 2 && number < 60 && digits.len() == part.len(),
            };
            if !valid {
                return None;
            }
            value = value.checked_mul(60)?.checked_add(number)?;
        }
        Some(if negative { -value } else { value })
    }

    /// The fraction that YAML 1.1 takes it for: with a dot, and an exponent only with its sign.
    pub fn as_float(&self) -> Option<f64> {
        if !self.plain {
            return None;
        }
        let text = self.text.replace('_', "");
        let digits = text.trim_start_matches(['+', '-']);
        let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (digits, None),
        };
        let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let (whole, fraction) = mantissa.split_once('.')?;
        let has_digits = is_number(whole) || (whole.is_empty() && is_number(fraction));
        let exponent_is_signed = exponent.is_none_or(|text| {
            text.starts_with(['+', '-']) && is_number(text.get(1..).unwrap_or_default())
        });
        let fraction_is_number = fraction.is_empty() || is_number(fraction);
        if !has_digits || !fraction_is_number || !exponent_is_signed {
            return None;
        }
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar {
            text: text.to_owned(),
            plain: true,
            binary: false,
        }
    }

    #[test]
    fn booleans_are_those_of_yaml_1_1() {
        for (text, expected) in [
            ("yes", Some(true)),
            ("On", Some(true)),
            ("NO", Some(false)),
            ("off", Some(false)),
            ("y", None),
            ("1", None),
        ] {
            assert_eq!(plain(text).as_bool(), expected, "{text}");
        }
    }

    #[test]
    fn integers_are_those_of_yaml_1_1() {
        for (text, expected) in [
            ("0", Some(0)),
            ("644", Some(644)),
            ("0644", Some(0o644)),
            ("0o644", Some(0o644)),
            ("0x1F", Some(31)),
            ("1_000", Some(1000)),
            ("-7", Some(-7)),
            ("0888", None),
            ("--1", None),
            ("", None),
            ("ten", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(plain(text).as_integer(), expected, "{text}");
        }
        assert_eq!(
            Scalar {
                text: "5".into(),
                plain: false,
                binary: false
            }
            .as_integer(),
            None
        );
    }
}
