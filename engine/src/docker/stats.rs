//! `GET /containers/NAME/stats`: what the control group counts, once a second.
//!
//! Fields and units are Docker's: nanoseconds, bytes. Without a second processor of statistics in between, `precpu` is
//! what was read a second before.

use super::Context;
use super::container::{self, Container};
use super::list::is_true;
use crate::compose::Slice;
use crate::server::{Engine, Refused};
use crate::slices;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often it is told, as Docker does.
const INTERVAL: Duration = Duration::from_secs(1);
/// The kernel counts processor time of the whole machine in these (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    stream: Option<String>,
    #[serde(rename = "one-shot")]
    one_shot: Option<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            stream: Some("true".to_owned()),
            one_shot: None,
        }
    }
}

pub(super) async fn stats(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Refused> {
    let container = container::find(&context.engine, &name).await?;
    let cgroups = context.paths.options.cgroups.clone();
    let json = [(header::CONTENT_TYPE, "application/json")];
    if !is_true(parameters.stream.as_deref()) {
        let mut first = Value::Null;
        if !is_true(parameters.one_shot.as_deref()) {
            first = read(&cgroups, &container);
            tokio::time::sleep(INTERVAL).await;
        }
        return Ok((json, line(&cgroups, &container, &first).0).into_response());
    }
    let mut ticks = interval_at(Instant::now(), INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let state = (context.engine, container.id, cgroups, ticks, Value::Null);
    let body = stream::unfold(
        state,
        |(engine, id, cgroups, mut ticks, before)| async move {
            ticks.tick().await;
            // Its state and its process change; it is gone when it is.
            let container = current(&engine, &id).await?;
            let (line, now) = line(&cgroups, &container, &before);
            Some((Ok::<_, io::Error>(line), (engine, id, cgroups, ticks, now)))
        },
    );
    Ok((json, Body::from_stream(body)).into_response())
}

async fn current(engine: &Engine, id: &str) -> Option<Container> {
    container::find(engine, id).await.ok()
}

/// One answer, and what was read for the next.
fn line(cgroups: &FilePath, container: &Container, before: &Value) -> (Vec<u8>, Value) {
    let now = read(cgroups, container);
    let mut told = now.clone();
    told["preread"] = match before["read"].is_null() {
        true => "0001-01-01T00:00:00Z".into(),
        false => before["read"].clone(),
    };
    told["precpu_stats"] = match before["cpu_stats"].is_null() {
        true => {
            json!({ "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 } })
        }
        false => before["cpu_stats"].clone(),
    };
    let mut text = told.to_string().into_bytes();
    text.push(b'\n');
    (text, now)
}

fn read(cgroups: &FilePath, container: &Container) -> Value {
    let slice = container
        .definition
        .cgroup_parent
        .unwrap_or(match container.stored {
            Some(_) => Slice::User,
            None => Slice::System,
        });
    let cgroup = slices::cgroup(cgroups, slice, &container.key);
    let mut value = json!({
        "read": humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        "name": format!("/{}", container.service.name),
        "id": container.id,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "blkio_stats": {},
        "cpu_stats": {},
        "memory_stats": {},
    });
    let Some(pid) = container.service.pid else {
        return value;
    };
    value["pids_stats"] = json!({
        "current": number(&cgroup.join("pids.current")),
        "limit": number(&cgroup.join("pids.max")),
    });
    value["cpu_stats"] = processor(&cgroup);
    value["memory_stats"] = memory(&cgroup);
    value["blkio_stats"] = json!({ "io_service_bytes_recursive": disk(&cgroup) });
    let shares_host = matches!(
        container.definition.network_mode,
        Some(crate::compose::NetworkMode::Host)
    );
    if !shares_host {
        value["networks"] = network(pid);
    }
    value
}

/// The number that a file holds; `null` for `max`.
fn number(file: &FilePath) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `KEY NUMBER` lines.
fn numbers(file: PathBuf) -> Map<String, Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse::<u64>().ok()?.into())))
        .collect()
}

fn processor(cgroup: &FilePath) -> Value {
    let stat = numbers(cgroup.join("cpu.stat"));
    let nanoseconds = |key: &str| stat.get(key).and_then(Value::as_u64).unwrap_or(0) * 1000;
    let count = |key: &str| stat.get(key).and_then(Value::as_u64).unwrap_or(0);
    json!({
        "cpu_usage": {
            "total_usage": nanoseconds("usage_usec"),
            "usage_in_kernelmode": nanoseconds("system_usec"),
            "usage_in_usermode": nanoseconds("user_usec"),
        },
        "system_cpu_usage": machine(),
        "online_cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "throttling_data": {
            "periods": count("nr_periods"),
            "throttled_periods": count("nr_throttled"),
            "throttled_time": nanoseconds("throttled_usec"),
        },
    })
}

/// Processor time of the whole machine: user, nice, system, idle, iowait, irq, softirq of proc_stat(5).
fn machine() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1).take(7);
    ticks
        .filter_map(|word| word.parse::<u64>().ok())
        .sum::<u64>()
        * TICK_NS
}

fn memory(cgroup: &FilePath) -> Value {
    let total = || {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    let events = numbers(cgroup.join("memory.events"));
    json!({
        "usage": number(&cgroup.join("memory.current")),
        "limit": number(&cgroup.join("memory.max")).or_else(total),
        "failcnt": events.get("oom").cloned().unwrap_or_default(),
        "stats": numbers(cgroup.join("memory.stat")),
    })
}

/// `io.stat`: `MAJOR:MINOR rbytes=N wbytes=N ...`.
fn disk(cgroup: &FilePath) -> Vec<Value> {
    let text = fs::read_to_string(cgroup.join("io.stat")).unwrap_or_default();
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) =
            device.map(|(major, minor)| (major.parse::<u64>(), minor.parse::<u64>()))
        else {
            continue;
        };
        for (word, op) in words.filter_map(|word| match word.split_once('=')? {
            ("rbytes", bytes) => Some((bytes, "read")),
            ("wbytes", bytes) => Some((bytes, "write")),
            _ => None,
        }) {
            let value = word.parse::<u64>().unwrap_or(0);
            entries.push(json!({ "major": major, "minor": minor, "op": op, "value": value }));
        }
    }
    entries
}

/// What its own interfaces have carried: the receive and transmit columns of `/proc/PID/net/dev`.
fn network(pid: i32) -> Value {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let mut interfaces = Map::new();
    for (name, rest) in text.lines().filter_map(|line| line.split_once(':')) {
        let columns: Vec<u64> = rest
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if name.trim() == "lo" || columns.len() < 12 {
            continue;
        }
        interfaces.insert(
            name.trim().to_owned(),
            json!({
                "rx_bytes": columns[0], "rx_packets": columns[1], "rx_errors": columns[2], "rx_dropped": columns[3],
                "tx_bytes": columns[8], "tx_packets": columns[9], "tx_errors": columns[10], "tx_dropped": columns[11],
            }),
        );
    }
    Value::Object(interfaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_is_read_in_dockers_units() {
        let cgroup = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(cgroup.path().join(name), text).unwrap();
        write(
            "cpu.stat",
            "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 4\n",
        );
        write("memory.current", "4096\n");
        write("memory.max", "8192\n");
        write("memory.stat", "anon 10\ninactive_file 20\n");
        write(
            "io.stat",
            "254:0 rbytes=7 wbytes=9 rios=1 wios=1 dbytes=0 dios=0\n",
        );
        let processor = processor(cgroup.path());
        assert_eq!(processor["cpu_usage"]["total_usage"], 5000);
        assert_eq!(processor["throttling_data"]["periods"], 4);
        assert!(processor["system_cpu_usage"].as_u64().unwrap() > 0);
        let memory = memory(cgroup.path());
        assert_eq!(
            (&memory["usage"], &memory["limit"]),
            (&json!(4096), &json!(8192))
        );
        assert_eq!(memory["stats"]["inactive_file"], 20);
        assert_eq!(
            disk(cgroup.path())[1],
            json!({ "major": 254, "minor": 0, "op": "write", "value": 9 })
        );
    }

    #[test]
    fn own_interfaces_are_told_without_the_loopback() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(
            network(own)
                .as_object()
                .is_some_and(|all| !all.contains_key("lo"))
        );
    }
}
