//! The log's records, as its service answers: behind the last one that has arrived at a server.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::message::Record;
use super::position::Place;

/// Records as the log service answers.
pub(super) struct Log {
    /// Records behind the place were overwritten.
    pub(super) has_lost: bool,
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Held open: the log service ends with those who close it.
    _asking: OwnedWriteHalf,
    /// One that was read to find the place.
    first: Option<Record>,
    /// Up to this number and moment all was sent.
    known: Option<Place>,
}

impl Log {
    /// The records behind `after`, or all that there are.
    ///
    /// # Errors
    /// The log service is not there, or has ended.
    pub(super) async fn open(socket: &Path, after: Option<Place>) -> Result<Self> {
        let Some(after) = after else {
            return Self::ask(socket, &json!({"follow": true})).await;
        };
        let from = json!({"follow": true, "after_id": after.id.saturating_sub(1)});
        let mut log = Self::ask(socket, &from).await?;
        let first = log.next().await?;
        match first.id {
            Some(id) if id == after.id && first.time_us == after.time_us => Ok(log),
            // Another log than the one that was sent: after a power cut, or because its disk is another one.
            Some(id) if id < after.id => Self::of_another_log(socket, after).await,
            // It was overwritten since, or has never reached the disk and another one has its number: all of this is new.
            id => {
                log.has_lost = id.is_some_and(|id| id > after.id.saturating_add(1));
                log.first = Some(first);
                Ok(log)
            }
        }
    }

    /// The records of a log that has not come to `after`. Of those that are there the older ones were sent; whatever is written
    /// from now on was not, also when the clock has gone back.
    async fn of_another_log(socket: &Path, after: Place) -> Result<Self> {
        let mut newest = Self::ask(socket, &json!({"tail": 1})).await?;
        let newest = newest.next().await?.id;
        let mut log = Self::ask(socket, &json!({"follow": true})).await?;
        log.known = newest.map(|id| Place { id, ..after });
        Ok(log)
    }

    async fn ask(socket: &Path, request: &serde_json::Value) -> Result<Self> {
        let (reader, mut asking) = UnixStream::connect(socket).await?.into_split();
        asking.write_all(format!("{request}\n").as_bytes()).await?;
        Ok(Self {
            has_lost: false,
            lines: BufReader::new(reader).lines(),
            _asking: asking,
            first: None,
            known: None,
        })
    }

    /// The next record, as soon as there is one. Nothing is lost when it is not waited for to the end.
    ///
    /// # Errors
    /// The log service has ended, or answers something else.
    pub(super) async fn next(&mut self) -> Result<Record> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        loop {
            let Some(line) = self.lines.next_line().await? else {
                bail!("the log service has ended");
            };
            let record: Record =
                serde_json::from_str(&line).with_context(|| format!("{line:.200}"))?;
            let is_known = self.known.is_some_and(|known| {
                record.id.is_some_and(|id| id <= known.id) && record.time_us <= known.time_us
            });
            if !is_known {
                return Ok(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tokio::net::UnixListener;

    const AFTER: Place = Place {
        id: 5,
        time_us: 500,
    };

    /// A log of these records (numbers and moments), which answers as the service does; later ones come when all was read.
    async fn serve(listener: UnixListener, records: &[(u64, u64)], later: &[(u64, u64)]) {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = client.into_split();
            let mut lines = BufReader::new(reader).lines();
            let line = lines.next_line().await.unwrap().unwrap();
            let request: Value = serde_json::from_str(&line).unwrap();
            let last = records.last().map_or(0, |(id, _)| *id);
            let after = request["after_id"].as_u64().filter(|id| *id <= last);
            let tail = request["tail"].as_u64().unwrap_or(u64::MAX) as usize;
            let skipped = records.len().saturating_sub(tail);
            let later = later.iter().filter(|_| request["follow"] == true);
            for (id, time_us) in records.iter().skip(skipped).chain(later) {
                if after.is_none_or(|after| *id > after) {
                    let record =
                        json!({"id": id, "time_us": time_us, "service": "s", "message": "m"});
                    let written = writer.write_all(format!("{record}\n").as_bytes()).await;
                    written.unwrap();
                }
            }
        }
    }

    /// The numbers of the records that are sent behind [`AFTER`], and whether some are missing.
    fn sent(records: &[(u64, u64)], later: &[(u64, u64)]) -> (Vec<u64>, bool) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("query.sock");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(&socket).unwrap();
            let reading = async {
                let mut log = Log::open(&socket, Some(AFTER)).await.unwrap();
                let mut ids = Vec::new();
                // The service of this test ends the answer.
                while let Ok(record) = log.next().await {
                    ids.push(record.id.unwrap());
                }
                (ids, log.has_lost)
            };
            tokio::select! {
                () = serve(listener, records, later) => unreachable!("it serves for ever"),
                sent = reading => sent,
            }
        })
    }

    #[test]
    fn the_sending_goes_on_behind_the_last_record_that_has_arrived() {
        let log = [(4, 400), (5, 500), (6, 600)];
        assert_eq!(sent(&log, &[(7, 700)]), (vec![6, 7], false));
        // It was overwritten, alone or with others.
        assert_eq!(sent(&[(6, 600)], &[]), (vec![6], false));
        assert_eq!(sent(&[(8, 800)], &[]), (vec![8], true));
    }

    #[test]
    fn what_is_written_after_a_power_cut_is_sent_also_when_the_clock_has_gone_back() {
        // The last ones never reached the disk; others have their numbers.
        let log = [(3, 300), (4, 400), (5, 100), (6, 110)];
        assert_eq!(sent(&log, &[(7, 120)]), (vec![5, 6, 7], false));
        assert_eq!(sent(&[(3, 300), (4, 400)], &[(5, 100)]), (vec![5], false));
        // There are fewer than were sent.
        let log = [(1, 300), (2, 400), (3, 501)];
        assert_eq!(sent(&log, &[(4, 100), (5, 110)]), (vec![3, 4, 5], false));
    }
}
