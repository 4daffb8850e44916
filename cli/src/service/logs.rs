//! `keelson service logs`: asks the log service.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keelson_engine::api::Service;
use keelson_engine::log_query::{Query, Record};
use serde::Deserialize;

use super::{SERVICES, unknown};
use crate::arguments::Logs;
use crate::client;
use crate::failure::Failure;
use crate::output::Output;

const SOCKET: &str = "/run/keelson/log/query.sock";
const LOG: &str = "the log service";
/// Sources of records that are no services.
const OTHER_SOURCES: [&str; 3] = ["kernel", "engine", "init"];

#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
}

/// Shows what a service, or everything, has said.
pub(super) fn run(command: &Logs, output: &mut Output<'_>) -> Result<(), Failure> {
    let since_us = command
        .since
        .as_deref()
        .map(|text| since(text, SystemTime::now()))
        .transpose()?;
    let query = Query {
        service: command.name.as_deref(),
        tail: command.tail,
        follow: command.follow,
        since_us,
    };
    if let Some(name) = query.service {
        check_name(Path::new(SOCKET), name)?;
    }
    ask(Path::new(SOCKET), &query, output).map(drop)
}

/// An unknown name is an error, unless something of that name has said something once.
fn check_name(socket: &Path, name: &str) -> Result<(), Failure> {
    // When the engine does not answer, the log still may.
    let Ok(services) = client::get::<Vec<Service>>(SERVICES) else {
        return Ok(());
    };
    if OTHER_SOURCES.contains(&name) || services.iter().any(|service| service.name == name) {
        return Ok(());
    }
    let last = Query {
        service: Some(name),
        tail: Some(1),
        follow: false,
        since_us: None,
    };
    match ask(socket, &last, &mut Output::nowhere())? {
        0 => Err(unknown(name, &services)),
        _ => Ok(()),
    }
}

/// Asks, and shows the answers as they come; gives how many there were.
fn ask(socket: &Path, query: &Query<'_>, output: &mut Output<'_>) -> Result<usize, Failure> {
    let reach = |error| Failure::unreachable(LOG, error);
    let mut stream = UnixStream::connect(socket).map_err(reach)?;
    let mut request = serde_json::to_vec(query)
        .map_err(|error| Failure::Failed(format!("write a query: {error}")))?;
    request.push(b'\n');
    stream.write_all(&request).map_err(reach)?;
    let mut count = 0;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(reach)?;
        if let Ok(refusal) = serde_json::from_str::<Refusal>(&line) {
            return Err(Failure::Failed(format!(
                "the log service: {}",
                refusal.error
            )));
        }
        count += 1;
        if output.json {
            output.text(&format!("{line}\n"))?;
            continue;
        }
        let record: Record = serde_json::from_str(&line)
            .map_err(|error| Failure::Failed(format!("read the log service's answer: {error}")))?;
        output.text(&render(&record, query.service.is_none()))?;
    }
    Ok(count)
}

/// One line: time, service where several are shown, a word for what is urgent, and the message without control characters.
fn render(record: &Record, with_service: bool) -> String {
    let time = UNIX_EPOCH
        .checked_add(Duration::from_micros(record.time_us))
        .unwrap_or(UNIX_EPOCH);
    let service = if with_service {
        format!("{}: ", record.service)
    } else {
        String::new()
    };
    let urgent = match record.priority {
        Some(0..=3) => "error: ",
        Some(4) => "warning: ",
        _ => "",
    };
    let message: String = record
        .message
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    format!(
        "{} {service}{urgent}{message}\n",
        humantime::format_rfc3339_millis(time)
    )
}

/// The moment that `text` means, in microseconds of Unix time.
fn since(text: &str, now: SystemTime) -> Result<u64, Failure> {
    let moment = match humantime::parse_duration(text) {
        Ok(ago) => now.checked_sub(ago),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    let microseconds = moment
        .and_then(|moment| moment.duration_since(UNIX_EPOCH).ok())
        .map(|since| since.as_micros());
    microseconds.and_then(|microseconds| u64::try_from(microseconds).ok()).ok_or_else(|| {
        Failure::Usage(format!("--since: `{text}` is neither a duration (90s, 10m, 2h) nor a time (2026-11-23T01:02:03Z)"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const LINE: &str = r#"{"time_us":1795395723456789,"boot_us":5,"service":"network","stream":"stderr","priority":3,"message":"no \u001b[1mlink"}"#;

    /// What is shown when the log service answers `answer`, and what it was asked.
    fn session(
        answer: &'static str,
        query: &Query<'_>,
        json: bool,
    ) -> (Result<usize, String>, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut line)
                .unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            line
        });
        let mut shown = Vec::new();
        let result = ask(&path, query, &mut Output::to(&mut shown, json))
            .map_err(|failure| failure.to_string());
        (
            result,
            String::from_utf8(shown).unwrap(),
            server.join().unwrap(),
        )
    }

    #[test]
    fn records_are_lines_and_escape_sequences_do_not_reach_the_terminal() {
        let record: Record = serde_json::from_str(LINE).unwrap();
        let expected = "2026-11-23T01:02:03.456Z network: error: no \u{fffd}[1mlink\n";
        assert_eq!(render(&record, true), expected);
        assert_eq!(render(&record, false), expected.replace("network: ", ""));
    }

    #[test]
    fn the_query_and_the_answers_are_one_json_a_line() {
        let query = Query {
            service: Some("network"),
            tail: Some(10),
            follow: false,
            since_us: None,
        };
        let answer: &'static str = Box::leak(format!("{LINE}\n{LINE}\n").into_boxed_str());
        let (result, shown, asked) = session(answer, &query, true);
        assert_eq!((result, shown.as_str()), (Ok(2), answer));
        assert_eq!(
            asked,
            "{\"service\":\"network\",\"tail\":10,\"follow\":false,\"since_us\":null}\n"
        );
        let (result, _, _) = session("{\"error\":\"bad request\"}\n", &query, false);
        assert_eq!(result, Err("the log service: bad request".into()));
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(since("10m", now).unwrap(), 400_000_000);
        assert_eq!(since("1970-01-01T00:00:01Z", now).unwrap(), 1_000_000);
        assert_eq!(since("1970-01-01 00:00:01", now).unwrap(), 1_000_000);
        for text in ["yesterday", "", "2h ago", "10000000h"] {
            assert_eq!(since(text, now).unwrap_err().status(), 2, "{text}");
        }
    }
}
