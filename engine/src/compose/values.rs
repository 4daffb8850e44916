//! Scalar values of the Compose specification: durations, byte sizes, signals and what else is written as one word.
//!
//! Each is read from the text as it stands in the file, so that `0755` and `yes` are not turned into something else.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

/// Reads any scalar through `FromStr`, from its text.
pub(super) fn scalar<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    struct Scalar<T>(PhantomData<T>);
    impl<T: FromStr<Err = String>> Visitor<'_> for Scalar<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a single value")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Scalar(PhantomData))
}

/// Makes types readable as a scalar.
macro_rules! scalars {
    ($($name:ty),+ $(,)?) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::compose::values::scalar(deserializer)
            }
        }
    )+};
}
pub(super) use scalars;

/// A word chosen from a fixed set.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// The word that stands in files.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is not one of: {}", [$($word),+].join(", "))),
                }
            }
        }
        $crate::compose::values::scalars!($name);
    };
}
pub(super) use words;

/// Any scalar, as its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

/// A size in bytes: `64m`, `1gb`, `4096` (Compose: units are binary).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a size: write bytes, or a number with b, k, m or g");
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let shift = match &lower[digits.len()..] {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.trim_end().parse().map_err(|_| wrong())?;
        number
            .checked_mul(1 << shift)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(Self)
            .ok_or_else(wrong)
    }
}

/// Memory and swap together, in bytes; -1 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwapLimit(pub i64);

impl FromStr for SwapLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-1" {
            return Ok(Self(-1));
        }
        let ByteSize(bytes) = text.parse()?;
        i64::try_from(bytes)
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

/// A duration: `1m30s`, `500ms`, `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a duration: write it as 1m30s, 500ms or 2h");
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let (mut rest, mut total_us) = (text, 0.0_f64);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(wrong)?;
            let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
            rest = &rest[end..];
            let end = rest
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(rest.len());
            total_us += number
                * match &rest[..end] {
                    "us" => 1.0,
                    "ms" => 1e3,
                    "s" => 1e6,
                    "m" => 60e6,
                    "h" => 3600e6,
                    "d" => 86_400e6,
                    _ => return Err(wrong()),
                };
            rest = &rest[end..];
        }
        // A hundred years in microseconds fit into the 53 bits of a double.
        if total_us > 3.2e15 {
            return Err(wrong());
        }
        Ok(Self(Duration::from_micros(total_us.round() as u64)))
    }
}

/// A signal, by name with or without `SIG`, or by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(pub i32);

impl FromStr for StopSignal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<i32>() {
            return if (1..=64).contains(&number) {
                Ok(Self(number))
            } else {
                Err(format!("there is no signal {number}"))
            };
        }
        let upper = text.to_ascii_uppercase();
        // glibc keeps 32 and 33 for itself: SIGRTMIN is 34.
        if let Some(offset) = upper
            .strip_prefix("SIG")
            .unwrap_or(&upper)
            .strip_prefix("RTMIN")
        {
            let offset = if offset.is_empty() {
                Ok(0)
            } else {
                offset.trim_start_matches('+').parse::<i32>()
            };
            return match offset {
                Ok(offset) if (0..=30).contains(&offset) => Ok(Self(34 + offset)),
                _ => Err(format!("there is no signal {text}")),
            };
        }
        let name = if upper.starts_with("SIG") {
            upper
        } else {
            format!("SIG{upper}")
        };
        nix::sys::signal::Signal::from_str(&name)
            .map(|signal| Self(signal as i32))
            .map_err(|_| format!("there is no signal {text}"))
    }
}

/// Processors, in thousandths of one: `0.5`, `2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus(pub u64);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: f64 = text
            .parse()
            .map_err(|_| format!("`{text}` is not a number of processors"))?;
        if !(0.001..=4096.0).contains(&number) {
            return Err(format!(
                "`{text}` is not a number of processors: between 0.001 and 4096"
            ));
        }
        Ok(Self((number * 1000.0).round() as u64))
    }
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// Whatever its exit status.
    Always,
    /// When its exit status is not 0, at most so many times in a row.
    OnFailure(Option<u32>),
    /// As `Always`, until it is stopped on request.
    UnlessStopped,
}

impl FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not one of: no, always, on-failure, on-failure:COUNT, unless-stopped"
            )
        };
        match text.split_once(':') {
            None => match text {
                "no" | "false" => Ok(Self::No),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                "on-failure" => Ok(Self::OnFailure(None)),
                _ => Err(wrong()),
            },
            Some(("on-failure", count)) => count
                .parse()
                .map(|count| Self::OnFailure(Some(count)))
                .map_err(|_| wrong()),
            Some(_) => Err(wrong()),
        }
    }
}

/// Permission bits, in octal: `0711`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        u32::from_str_radix(digits, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a mode: four octal digits such as \"0755\""))
    }
}

/// A capability, without `CAP_`; `ALL` is every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability(pub String);

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || crate::spec::CAPABILITIES.contains(&name) {
            return Ok(Self(name.to_owned()));
        }
        Err(format!("there is no capability `{text}`"))
    }
}

scalars!(
    Text, ByteSize, SwapLimit, Span, StopSignal, Cpus, Restart, Mode, Capability
);
