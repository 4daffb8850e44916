//! How much each service may write to the main ring.

use crate::record::{Entry, Stream};
use crate::store::SEGMENT_BYTES;
use std::collections::HashMap;

/// A service that writes its hourly budget all the time fills the main ring in this many hours.
pub(crate) const MAIN_RING_HOURS: u64 = 48;
const HOUR_US: u64 = 3_600_000_000;

/// Those of all services.
#[derive(Debug, Default)]
pub(crate) struct Budgets(HashMap<String, Budget>);

#[derive(Debug)]
struct Budget {
    bytes: u64,
    filled_us: u64,
}

impl Budgets {
    /// Whether an entry is within its service's budget.
    pub(crate) fn spend(&mut self, entry: Entry<'_>, hourly_bytes: u64) -> bool {
        let (key, length, now_us) = costs(entry);
        if !self.0.contains_key(key) {
            let full = Budget {
                bytes: u64::from(SEGMENT_BYTES),
                filled_us: now_us,
            };
            self.0.insert(key.to_owned(), full);
        }
        let budget = self.0.get_mut(key);
        budget.is_none_or(|budget| budget.spend(length, now_us, hourly_bytes))
    }
}

impl Budget {
    fn spend(&mut self, length: u64, now_us: u64, hourly_bytes: u64) -> bool {
        let elapsed_us = now_us
            .saturating_sub(self.filled_us)
            .min(HOUR_US * MAIN_RING_HOURS);
        let gained = elapsed_us * hourly_bytes / HOUR_US;
        if gained > 0 {
            self.filled_us = now_us;
            self.bytes = (self.bytes + gained).min(u64::from(SEGMENT_BYTES));
        }
        let within = length <= self.bytes;
        if within {
            self.bytes -= length;
        }
        within
    }
}

/// Whose budget it is, how much of it, and when.
fn costs(entry: Entry<'_>) -> (&str, u64, u64) {
    let (service, length, boot_us) = match entry {
        // Whoever may write to /dev/kmsg can claim any name there: all of that is one budget.
        Entry::Record(record) if record.stream == Stream::Kernel => {
            ("kernel", record.message.len(), record.boot_us)
        }
        Entry::Record(record) => (
            record.service.as_str(),
            record.message.len(),
            record.boot_us,
        ),
        Entry::Lines(lines) => (lines.service, lines.bytes.len(), lines.boot_us),
    };
    (service, (length + service.len()) as u64, boot_us)
}
