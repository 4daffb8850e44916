//! When a machine may restart: on some days of the week, from one time of day to another.
//!
//! Times have a fixed distance from UTC: summer time is not followed, for the service has no time zones.

use std::time::Duration;

use serde::Deserialize;

const DAY_S: i64 = 24 * 60 * 60;
/// 1 January 1970 was a Thursday; Sunday is 0.
const FIRST_WEEKDAY: i64 = 4;

/// A window of the week.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Window {
    /// The days on which it opens, 0 is Sunday; every day when there is none.
    #[serde(default)]
    pub days: Vec<u8>,
    /// It opens so many minutes after midnight.
    pub from_min: u16,
    /// It closes so many minutes after midnight, perhaps the next one.
    pub to_min: u16,
    /// Its midnight is so many minutes before that of UTC: 60 for +01:00.
    #[serde(default)]
    pub offset_min: i16,
}

/// The time from which on a window is open, and until when, in seconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// It opens.
    pub from_s: i64,
    /// It closes.
    pub to_s: i64,
}

impl Window {
    /// The opening that is, or comes next.
    pub fn next(&self, now_s: i64) -> Opening {
        let offset = i64::from(self.offset_min) * 60;
        let local = now_s + offset;
        let (from, to) = (i64::from(self.from_min) * 60, i64::from(self.to_min) * 60);
        let length = match (to - from).rem_euclid(DAY_S) {
            0 => DAY_S,
            length => length,
        };
        let today = local.div_euclid(DAY_S);
        // Yesterday's may still be open.
        let mut openings = (today - 1..=today + 7).filter_map(|day| {
            let weekday = (day + FIRST_WEEKDAY).rem_euclid(7);
            let opens =
                self.days.is_empty() || self.days.iter().any(|it| i64::from(*it) == weekday);
            let start = day * DAY_S + from;
            (opens && start + length > local).then_some(Opening {
                from_s: start - offset,
                to_s: start + length - offset,
            })
        });
        // Days that there are not (a damaged file) never come.
        openings.next().unwrap_or(Opening {
            from_s: i64::MAX,
            to_s: i64::MAX,
        })
    }
}

/// When a machine restarts for a version that was installed at `installed_s`, in seconds of Unix time: `delay` after the window opens, but before it closes.
pub fn restart_at(window: Option<&Window>, installed_s: i64, delay: Duration, now_s: i64) -> i64 {
    let delay = i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
    match window {
        None => installed_s.saturating_add(delay),
        Some(window) => {
            let opening = window.next(now_s);
            let last = opening
                .to_s
                .saturating_sub(opening.from_s)
                .saturating_sub(1);
            opening.from_s.saturating_add(delay.min(last.max(0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seconds of Unix time.
    fn at(text: &str) -> i64 {
        let time = humantime::parse_rfc3339(text).unwrap();
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_secs() as i64
    }

    fn window(days: &[u8], from: u16, to: u16, offset_min: i16) -> Window {
        Window {
            days: days.to_vec(),
            from_min: from * 60,
            to_min: to * 60,
            offset_min,
        }
    }

    #[test]
    fn a_window_opens_on_its_days_at_its_time_and_place() {
        // 28 November 2026 is a Saturday.
        for (days, from, to, offset, now, opens, closes) in [
            (
                &[][..],
                2,
                5,
                0,
                "2026-11-28T01:00:00Z",
                "2026-11-28T02:00:00Z",
                "2026-11-28T05:00:00Z",
            ),
            (
                &[],
                2,
                5,
                0,
                "2026-11-28T04:59:59Z",
                "2026-11-28T02:00:00Z",
                "2026-11-28T05:00:00Z",
            ),
            (
                &[],
                2,
                5,
                0,
                "2026-11-28T05:00:00Z",
                "2026-11-29T02:00:00Z",
                "2026-11-29T05:00:00Z",
            ),
            (
                &[0],
                2,
                5,
                0,
                "2026-11-28T03:00:00Z",
                "2026-11-29T02:00:00Z",
                "2026-11-29T05:00:00Z",
            ),
            (
                &[6],
                2,
                5,
                60,
                "2026-11-28T04:00:00Z",
                "2026-12-05T01:00:00Z",
                "2026-12-05T04:00:00Z",
            ),
            (
                &[6],
                22,
                4,
                0,
                "2026-11-29T03:00:00Z",
                "2026-11-28T22:00:00Z",
                "2026-11-29T04:00:00Z",
            ),
            (
                &[0],
                0,
                3,
                120,
                "2026-11-28T22:30:00Z",
                "2026-11-28T22:00:00Z",
                "2026-11-29T01:00:00Z",
            ),
            (
                &[6],
                0,
                0,
                0,
                "2026-11-28T12:00:00Z",
                "2026-11-28T00:00:00Z",
                "2026-11-29T00:00:00Z",
            ),
        ] {
            let opening = window(days, from, to, offset).next(at(now));
            let expected = Opening {
                from_s: at(opens),
                to_s: at(closes),
            };
            assert_eq!(opening, expected, "{days:?} {from} {to} {offset} {now}");
        }
    }

    #[test]
    fn a_restart_is_put_off_within_the_window() {
        let nightly = window(&[], 2, 3, 0);
        let hour = Duration::from_secs(3600);
        let (before, in_it) = (at("2026-11-28T00:00:00Z"), at("2026-11-28T02:40:00Z"));
        for (delay, now, expected) in [
            (Duration::ZERO, before, "2026-11-28T02:00:00Z"),
            (hour / 2, before, "2026-11-28T02:30:00Z"),
            // It is over: now.
            (hour / 2, in_it, "2026-11-28T02:30:00Z"),
            (hour * 9, before, "2026-11-28T02:59:59Z"),
        ] {
            assert_eq!(restart_at(Some(&nightly), before, delay, now), at(expected));
        }
        assert_eq!(restart_at(None, before, hour, in_it), before + 3600);
        let never = window(&[9], 2, 3, 0);
        assert!(restart_at(Some(&never), before, hour, in_it) > in_it * 1000);
    }

    proptest! {
        #[test]
        fn the_next_opening_is_not_over(
            days in proptest::collection::vec(0..7u8, 0..4), from in 0..1440u16, to in 0..1440u16,
            offset in -720..840i16, now in 0..4_000_000_000i64,
        ) {
            let window = Window { days, from_min: from, to_min: to, offset_min: offset };
            let opening = window.next(now);
            prop_assert!(opening.to_s > now);
            prop_assert!(opening.from_s - now <= 8 * DAY_S);
            prop_assert!(opening.to_s - opening.from_s <= DAY_S);
        }
    }
}
