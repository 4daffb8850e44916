//! `GET /containers/NAME/logs`: what the log service keeps, in Docker's stream format.
//!
//! Each line comes with a header of eight bytes: the stream (1 or 2), three zeros, the length as a big-endian number.

use super::container::{self, Container};
use super::error::{error, invalid, refused};
use super::hijack::{MULTIPLEXED, RAW};
use super::list::is_true;
use super::{Condition, Context};
use crate::handover;
use crate::log_query::{Query, Record};
use crate::output::Stream;
use crate::relay::Chunk;
use crate::server::{self, Refused, Request};
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
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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
    /// As it came, without frames: what a terminal printed.
    raw: bool,
}

pub(super) async fn logs(
    State(context): State<Context>,
    Path(name): Path<String>,
    UrlQuery(parameters): UrlQuery<Parameters>,
) -> Result<Response, Refused> {
    let container = container::find(&context.engine, &name).await?;
    let wanted = Wanted {
        stdout: is_true(parameters.stdout.as_deref()),
        stderr: is_true(parameters.stderr.as_deref()),
        timestamps: is_true(parameters.timestamps.as_deref()),
        until_us: moment("until", parameters.until.as_deref())?,
        raw: container.definition.tty,
    };
    if !wanted.stdout && !wanted.stderr {
        return Err(invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let question = Query {
        service: Some(&container.key),
        tail: parameters
            .tail
            .as_deref()
            .and_then(|tail| tail.parse().ok()),
        follow: is_true(parameters.follow.as_deref()),
        since_us: moment("since", parameters.since.as_deref())?,
    };
    let lines = lines(&context, &container, &question).await?;
    let body = stream::try_unfold(lines, move |mut lines| async move {
        while let Some(line) = lines.next().await? {
            if let Some(frame) = frame(&line, wanted)? {
                return Ok::<_, io::Error>(Some((frame, lines)));
            }
        }
        Ok(None)
    });
    let kind = if wanted.raw { RAW } else { MULTIPLEXED };
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

/// What a container prints from now on, for who is attached to one whose streams go to the log only.
pub(super) async fn follow(
    context: &Context,
    container: &Container,
) -> Result<mpsc::Receiver<Chunk>, Refused> {
    let question = Query {
        service: Some(&container.key),
        tail: Some(0),
        follow: true,
        since_us: None,
    };
    let mut lines = lines(context, container, &question).await?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next().await {
            let Ok(record) = serde_json::from_str::<Record>(&line) else {
                return;
            };
            let stream = match record.stream.as_str() {
                "stderr" => Stream::Stderr,
                _ => Stream::Stdout,
            };
            let end = if record.partial { "" } else { "\n" };
            let bytes = format!("{}{end}", record.message).into();
            if sender.send(Chunk { stream, bytes }).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// An answer of the log service, which ends it when the asking side is closed.
struct Answer {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _open: Option<OwnedWriteHalf>,
    _closing: Option<Closing>,
}

/// Closes the asking side when a container has ended and the log service has read what it printed last.
struct Closing(JoinHandle<()>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    async fn next(&mut self) -> io::Result<Option<String>> {
        self.lines.next_line().await
    }
}

/// Asks the log service. Following a container that a client made ends with its run, as Docker has it; a service is
/// followed over its restarts.
async fn lines(
    context: &Context,
    container: &Container,
    question: &Query<'_>,
) -> Result<Answer, Refused> {
    let for_a_run = question.follow && container.stored.is_some();
    let running = container.is_up();
    let question = Query {
        service: question.service,
        follow: question.follow && (running || !for_a_run),
        ..*question
    };
    let flush = |key: String| {
        let socket = context.paths.options.log_socket();
        async move {
            // A log service that is away answers the question no better.
            let _ = handover::flush(&socket, &key).await;
        }
    };
    if container.stored.is_some() && !running {
        flush(container.key.clone()).await;
    }
    let (lines, writer) = ask(&context.paths.log_queries, &question)
        .await
        .map_err(|why| {
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the log service does not answer: {why}"),
            )
        })?;
    if !for_a_run || !running {
        return Ok(Answer {
            lines,
            _open: Some(writer),
            _closing: None,
        });
    }
    let request = |answer| Request::Wait(container.key.clone(), Condition::NotRunning, answer);
    let exit = server::ask(&context.engine, request)
        .await?
        .map_err(refused)?;
    let flushed = flush(container.key.clone());
    let closing = tokio::spawn(async move {
        // One that is removed meanwhile has ended as well.
        let _ = exit.await;
        flushed.await;
        drop(writer);
    });
    Ok(Answer {
        lines,
        _open: None,
        _closing: Some(Closing(closing)),
    })
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
    if wanted.raw {
        return Ok(Some(text.into_bytes()));
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
        raw: false,
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
