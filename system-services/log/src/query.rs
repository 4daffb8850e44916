//! The query socket. A client sends one line,
//! `{"service":"network","tail":100,"since_us":null,"after_id":null,"follow":true}`, every key optional, and gets one line a record:
//!
//! `{"id":..,"time_us":..,"boot_us":..,"service":"network","stream":"stdout","priority":null,"message":"..."}`
//!
//! Records have growing numbers; `after_id` asks for those behind one, and for all when the log has not come to it.
//! `"partial":true` stands where the record is not a whole line. `{"error":"..."}` answers what cannot be understood.
//! Who follows and closes the sending side gets what there is by then, and the end.

use crate::reader::{Filter, Item, Reader};
use crate::record::Record;
use crate::store::SharedStore;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest request.
const REQUEST_MAX_BYTES: u64 = 4096;
/// A client that asks nothing is let go after this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients served at once; more wait.
const CLIENTS_MAX: usize = 64;
/// So much is put together before it is sent.
const CHUNK_BYTES: usize = 32 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    service: Option<String>,
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
    since_us: Option<u64>,
    after_id: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Answer<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    time_us: u64,
    boot_us: u64,
    service: &'r str,
    stream: &'r str,
    priority: Option<u8>,
    message: Cow<'r, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

/// Answers queries, for ever.
///
/// # Errors
/// What accept(2) reports.
pub async fn run(listener: UnixListener, store: SharedStore) -> io::Result<()> {
    let places = Rc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let place = Rc::clone(&places);
        let (client, _) = listener.accept().await?;
        let store = Rc::clone(&store);
        tokio::task::spawn_local(async move {
            let Ok(_place) = place.acquire().await else {
                return;
            };
            // The client has gone away: nobody is left to be told.
            let _ = serve(client, &store).await;
        });
    }
}

async fn serve(client: UnixStream, store: &SharedStore) -> io::Result<()> {
    let (reader, mut writer) = client.into_split();
    let mut reader = BufReader::new(reader.take(REQUEST_MAX_BYTES));
    let mut line = String::new();
    match timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await {
        Ok(read) => read?,
        Err(_elapsed) => return refuse(&mut writer, "no request came in time").await,
    };
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => return refuse(&mut writer, &format!("bad request: {error}")).await,
    };
    let filter = Filter {
        service: request.service,
        since_us: request.since_us,
    };
    let mut changes = store.borrow().subscribe();
    let last_id = *changes.borrow_and_update();
    let mut place = match (request.tail, request.after_id) {
        (Some(count), _) => Reader::from_tail(store, &filter, count).await?,
        (None, Some(id)) if id <= last_id => Reader::after(store.borrow().rings(), id),
        (None, _) => Reader::from_start(store.borrow().rings()),
    };
    let mut hangup = reader.into_inner().into_inner();
    loop {
        changes.mark_unchanged();
        if send_all(&mut place, &filter, store, &mut writer).await? {
            continue;
        }
        if !request.follow {
            return writer.shutdown().await;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = gone(&mut hangup) => {
                while send_all(&mut place, &filter, store, &mut writer).await? {}
                return writer.shutdown().await;
            }
        }
    }
}

async fn refuse(writer: &mut OwnedWriteHalf, why: &str) -> io::Result<()> {
    let answer = serde_json::json!({"error": why});
    writer.write_all(format!("{answer}\n").as_bytes()).await
}

/// Until the client has closed its side. What it still says is not listened to.
async fn gone(reader: &mut OwnedReadHalf) {
    let mut ignored = [0; 256];
    while matches!(reader.read(&mut ignored).await, Ok(length) if length > 0) {}
}

/// Sends a chunk of what is there; `false` when that was all.
async fn send_all(
    place: &mut Reader,
    filter: &Filter,
    store: &SharedStore,
    writer: &mut OwnedWriteHalf,
) -> io::Result<bool> {
    let mut chunk = Vec::new();
    let mut more = true;
    let mut read_bytes = 0;
    // A filter that matches little must not keep everybody else waiting either.
    while more && chunk.len() < CHUNK_BYTES && read_bytes < CHUNK_BYTES * 8 {
        match place.next(store.borrow().rings())? {
            Some(Item::Record(record)) => {
                read_bytes += record.message.len() + record.service.len();
                if filter.matches(&record) {
                    write_record(&record, &mut chunk)?;
                }
            }
            Some(Item::Overwritten) => write_gap(&mut chunk)?,
            None => more = false,
        }
    }
    writer.write_all(&chunk).await?;
    tokio::task::yield_now().await;
    Ok(more)
}

fn write_record(record: &Record, out: &mut Vec<u8>) -> io::Result<()> {
    let answer = Answer {
        id: Some(record.id),
        time_us: record.time_us,
        boot_us: record.boot_us,
        service: &record.service,
        stream: record.stream.as_str(),
        priority: record.priority,
        message: String::from_utf8_lossy(&record.message),
        partial: record.partial,
    };
    serde_json::to_writer(&mut *out, &answer)?;
    out.push(b'\n');
    Ok(())
}

/// Tells a reader that was too slow.
fn write_gap(out: &mut Vec<u8>) -> io::Result<()> {
    let now = crate::clock::Time::now();
    let answer = Answer {
        id: None,
        time_us: now.real_us,
        boot_us: now.boot_us,
        service: "log",
        stream: "stderr",
        priority: Some(4),
        message: "records were overwritten before they could be read".into(),
        partial: false,
    };
    serde_json::to_writer(&mut *out, &answer)?;
    out.push(b'\n');
    Ok(())
}
