//! `GET /containers/NAME/logs`: what the log service keeps, in Docker's stream format.
//!
//! Each line comes with a header of eight bytes: the stream (1 or 2), three zeros, the length as a big-endian number.

use super::Context;
use super::container;
use super::error::{error, invalid};
use super::list::is_true;
use crate::log_query::{Query, Record};
use crate::server::Refused;
use axum::body::Body;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use std::io;
use std::path::Path as FilePath;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    follow: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
    since: Option<String>,
    until: Option<String>,
    timestamps: Option<String>,
    tail: Option<String>,
}

/// What is wanted of the records.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    until_us: Option<u64>,
}

pub(super) async fn logs(
    State(context): State<Context>,
    Path(name): Path<String>,
    UrlQuery(parameters): UrlQuery<Parameters>,
) -> Result<Response, Refused> {
    let wanted = Wanted {
        stdout: is_true(parameters.stdout.as_deref()),
        stderr: is_true(parameters.stderr.as_deref()),
        timestamps: is_true(parameters.timestamps.as_deref()),
        until_us: moment("until", parameters.until.as_deref())?,
    };
    if !wanted.stdout && !wanted.stderr {
        return Err(invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let container = container::find(&context.engine, &name).await?;
    let question = Query {
        service: Some(&container.service.name),
        tail: parameters
            .tail
            .as_deref()
            .and_then(|tail| tail.parse().ok()),
        follow: is_true(parameters.follow.as_deref()),
        since_us: moment("since", parameters.since.as_deref())?,
    };
    let (lines, writer) = ask(&context.paths.log_queries, &question)
        .await
        .map_err(|why| {
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the log service does not answer: {why}"),
            )
        })?;
    // The log service ends its answer when the asking side is closed.
    let body = stream::try_unfold((lines, writer), move |(mut lines, writer)| async move {
        while let Some(line) = lines.next_line().await? {
            if let Some(frame) = frame(&line, wanted)? {
                return Ok::<_, io::Error>(Some((frame, (lines, writer))));
            }
        }
        Ok(None)
    });
    Ok((
        [(header::CONTENT_TYPE, MULTIPLEXED)],
        Body::from_stream(body),
    )
        .into_response())
}

async fn ask(
    socket: &FilePath,
    question: &Query<'_>,
) -> io::Result<(Lines<BufReader<OwnedReadHalf>>, OwnedWriteHalf)> {
    let (reader, mut writer) = UnixStream::connect(socket).await?.into_split();
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    Ok((BufReader::new(reader).lines(), writer))
}

/// A record as Docker sends it; `None` for one that is not wanted.
fn frame(line: &str, wanted: Wanted) -> io::Result<Option<Vec<u8>>> {
    let record: Record = serde_json::from_str(line)?;
    let (number, asked) = match record.stream.as_str() {
        "stderr" => (STDERR, wanted.stderr),
        _ => (STDOUT, wanted.stdout),
    };
    if !asked || wanted.until_us.is_some_and(|until| record.time_us > until) {
        return Ok(None);
    }
    let mut text = String::new();
    if wanted.timestamps {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(record.time_us);
        text = format!("{} ", humantime::format_rfc3339_nanos(time));
    }
    text.push_str(&record.message);
    if !record.partial {
        text.push('\n');
    }
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut frame = vec![number, 0, 0, 0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    Ok(Some(frame))
}

/// A moment as Docker's clients send it, seconds with a fraction, in microseconds; none and 0 are no limit.
fn moment(name: &str, text: Option<&str>) -> Result<Option<u64>, Refused> {
    let Some(text) = text.filter(|text| !text.is_empty() && *text != "0") else {
        return Ok(None);
    };
    let wrong = || invalid(format!("invalid value for \"{name}\": {text}"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u64 = seconds.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros: u64 = micros.parse().map_err(|_| wrong())?;
    let total = seconds
        .checked_mul(1_000_000)
        .and_then(|all| all.checked_add(micros));
    total.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted {
        stdout: true,
        stderr: true,
        timestamps: false,
        until_us: None,
    };

    #[test]
    fn a_record_becomes_a_frame_of_its_stream() {
        let line = r#"{"time_us":1500000,"boot_us":1,"service":"a","stream":"stderr","priority":null,"message":"hé"}"#;
        let frame_of = |wanted| frame(line, wanted).unwrap();
        assert_eq!(frame_of(ALL).unwrap(), b"\x02\0\0\0\0\0\0\x04h\xc3\xa9\n");
        let stamped = frame_of(Wanted {
            timestamps: true,
            ..ALL
        })
        .unwrap();
        assert_eq!(
            &stamped[8..],
            "1970-01-01T00:00:01.500000000Z hé\n".as_bytes()
        );
        assert_eq!(
            frame_of(Wanted {
                stderr: false,
                ..ALL
            }),
            None
        );
        assert_eq!(
            frame_of(Wanted {
                until_us: Some(1_499_999),
                ..ALL
            }),
            None
        );
        assert!(frame("{", ALL).is_err());
    }

    #[test]
    fn moments_are_seconds_with_a_fraction() {
        let moment = |text| moment("since", Some(text)).map_err(|_| ());
        assert_eq!(moment("0"), Ok(None));
        assert_eq!(moment("12"), Ok(Some(12_000_000)));
        assert_eq!(moment("12.000000001"), Ok(Some(12_000_000)));
        assert_eq!(moment("12.5"), Ok(Some(12_500_000)));
        for wrong in ["x", "1.x", "-1", "99999999999999999999"] {
            assert_eq!(moment(wrong), Err(()), "{wrong}");
        }
    }
}
