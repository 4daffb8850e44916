//! `GET /containers/NAME/top`.

use super::container;
use super::error::{error, invalid};
use crate::events::Attributes;
use crate::server::{Engine, Refused};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use bollard_stubs::models::ContainerTopResponse;
use serde::Deserialize;
use std::fs;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    ps_args: Option<String>,
}

/// The columns that `/proc` tells without a `ps`; whose arguments mean nothing here.
const TITLES: [&str; 4] = ["UID", "PID", "PPID", "CMD"];

pub(super) async fn top(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<ContainerTopResponse>, Refused> {
    if !matches!(parameters.ps_args.as_deref(), None | Some("" | "-ef")) {
        return Err(invalid(
            "the system engine has no ps: leave its arguments out",
        ));
    }
    let container = container::find(&engine, &name).await?;
    let Some(pid) = container.service.pid else {
        return Err(error(
            StatusCode::CONFLICT,
            format!("container {} is not running", container.id),
        ));
    };
    container::tell(&engine, &container.key, "top", Attributes::new()).await?;
    let processes = members(pid).into_iter().filter_map(row);
    Ok(Json(ContainerTopResponse {
        titles: Some(TITLES.map(str::to_owned).to_vec()),
        processes: Some(processes.collect()),
    }))
}

/// All processes in the control group of this one, and below.
fn members(pid: i32) -> Vec<i32> {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else {
        return vec![pid];
    };
    let mut found = Vec::new();
    let mut directories = vec![format!("/sys/fs/cgroup{path}").into()];
    while let Some(directory) = directories.pop() {
        let directory: std::path::PathBuf = directory;
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        let below = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    found.sort_unstable();
    found
}

/// A line of the table; `None` when the process has gone meanwhile.
fn row(pid: i32) -> Option<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.split_whitespace().next()?.to_owned())
    };
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .trim_end_matches('\0')
        .replace('\0', " ");
    let command = match command.is_empty() {
        true => format!("[{}]", field("Name:")?),
        false => command,
    };
    Some(vec![
        field("Uid:")?,
        pid.to_string(),
        field("PPid:")?,
        command,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_row() {
        let own = i32::try_from(std::process::id()).unwrap();
        let row = row(own).unwrap();
        assert_eq!(row[1], own.to_string());
        assert!(row[3].contains("keelson_engine"), "{row:?}");
        assert_eq!(super::row(i32::MAX), None);
    }
}
