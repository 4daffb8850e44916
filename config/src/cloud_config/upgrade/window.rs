//! `keelson.upgrade.window`: `[DAYS] HH:MM-HH:MM [UTC|+HH:MM|-HH:MM]`.

use serde::Serialize;

const DAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];
const DAY_MIN: u16 = 24 * 60;
/// Places are at most so far from UTC, in minutes.
const OFFSET_MAX_MIN: u16 = 14 * 60;

/// When a machine may restart by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// The days on which it opens, 0 is Sunday; every day when there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<u8>,
    /// It opens so many minutes after midnight.
    pub from_min: u16,
    /// It closes so many minutes after midnight, perhaps the next one.
    pub to_min: u16,
    /// Its midnight is so many minutes before that of UTC.
    pub offset_min: i16,
}

impl Window {
    /// Reads one; `None` when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
        let offset_min = match words.last() {
            Some(last) if !last.contains([':', '-', '+']) && words.len() > 1 => {
                last.eq_ignore_ascii_case("utc").then_some(0)?
            }
            Some(last) if last.starts_with(['+', '-']) => offset(last)?,
            _ => {
                words.push("utc");
                0
            }
        };
        words.pop();
        let days = match words.as_slice() {
            [_] => Vec::new(),
            [days, _] => days
                .split(',')
                .map(day)
                .collect::<Option<Vec<Vec<u8>>>>()?
                .concat(),
            _ => return None,
        };
        let (from, to) = words.last()?.split_once('-')?;
        Some(Window {
            days,
            from_min: time(from).filter(|time| *time < DAY_MIN)?,
            to_min: time(to)? % DAY_MIN,
            offset_min,
        })
    }
}

/// `sat`, `Saturday`, `mon-fri`
fn day(text: &str) -> Option<Vec<u8>> {
    let number = |name: &str| {
        let name = name.to_ascii_lowercase();
        let place = DAYS
            .iter()
            .position(|day| name.len() >= 3 && day.starts_with(&name))?;
        u8::try_from(place).ok()
    };
    match text.split_once('-') {
        None => Some(vec![number(text)?]),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            let count = (last + 7 - first) % 7 + 1;
            Some((0..count).map(|step| (first + step) % 7).collect())
        }
    }
}

/// `HH:MM` up to `24:00`, in minutes.
fn time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
        is_number.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MIN).then_some(total)
}

/// `+HH:MM`, `-HH:MM`
fn offset(text: &str) -> Option<i16> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+')?),
    };
    let minutes = time(text).filter(|minutes| *minutes <= OFFSET_MAX_MIN)?;
    let minutes = i16::try_from(minutes).ok()?;
    Some(if negative { -minutes } else { minutes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_days_times_and_a_distance_from_utc() {
        for (text, days, from_min, to_min, offset_min) in [
            ("02:00-05:00", &[][..], 120, 300, 0),
            ("2:00-5:30 UTC", &[], 120, 330, 0),
            ("sat,sun 22:00-04:00 +01:00", &[6, 0], 1320, 240, 60),
            ("Mon-Fri 00:00-24:00 -03:30", &[1, 2, 3, 4, 5], 0, 0, -210),
            ("Saturday 01:00-02:00", &[6], 60, 120, 0),
            ("fri-mon 01:00-02:00", &[5, 6, 0, 1], 60, 120, 0),
        ] {
            let expected = Window {
                days: days.to_vec(),
                from_min,
                to_min,
                offset_min,
            };
            assert_eq!(Window::parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_window_is_none() {
        for text in [
            "",
            "sat",
            "02:00",
            "02:00-05:60",
            "24:00-05:00",
            "25:00-05:00",
            "02:00-05:00 CET",
            "02:00-05:00 +15:00",
            "xyz 02:00-05:00",
            "sat sun 02:00-05:00",
            "02:00-",
            "02:00-05:00 +1",
            "-",
            "+01:00",
            "sa 02:00-05:00",
            "satan 02:00-05:00",
        ] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }
}
