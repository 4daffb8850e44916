//! `POST /containers/NAME/exec`, and `/exec/ID/start`, `/json`, `/resize`.

use super::Context;
use super::attach::Size;
use super::container;
use super::detach::Detach;
use super::error::{error, invalid, parse};
use super::hijack::{Wanted, carry, upgrade};
use crate::events::Attributes;
use crate::exec::{self, Exec, Progress, process};
use crate::relay::terminal;
use crate::server::Refused;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use bollard_stubs::models::{
    ContainerStateStatusEnum as Status, ExecConfig, ExecInspectResponse, ExecStartConfig,
    ProcessConfig,
};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Far more than a request to start has.
const BODY_MAX_BYTES: usize = 64 * 1024;

pub(super) async fn create(
    State(context): State<Context>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let config: ExecConfig = parse(&body)?;
    exec::check(&config).map_err(|why| invalid(why.to_string()))?;
    Detach::parse(config.detach_keys.as_deref()).map_err(invalid)?;
    let container = container::find(&context.engine, &name).await?;
    match container.status() {
        Status::RUNNING => {}
        Status::PAUSED => {
            return Err(error(
                StatusCode::CONFLICT,
                format!(
                    "container {} is paused, unpause the container before exec",
                    container.id
                ),
            ));
        }
        _ => {
            return Err(error(
                StatusCode::CONFLICT,
                format!("container {} is not running", container.id),
            ));
        }
    }
    let key = container.key.clone();
    let words = config.cmd.clone().unwrap_or_default().join(" ");
    let id = context.execs.add(container.key, container.id, config);
    tell(&context, &key, format!("exec_create: {words}"), &id, None).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))))
}

/// An event of a container's further process.
async fn tell(
    context: &Context,
    key: &str,
    action: String,
    id: &str,
    code: Option<i32>,
) -> Result<(), Refused> {
    let mut attributes = Attributes::from([("execID".to_owned(), id.to_owned())]);
    attributes.extend(code.map(|code| ("exitCode".to_owned(), code.to_string())));
    container::tell(&context.engine, key, &action, attributes).await
}

fn find(context: &Context, id: &str) -> Result<Exec, Refused> {
    let missing = || {
        error(
            StatusCode::NOT_FOUND,
            format!("No such exec instance: {id}"),
        )
    };
    context.execs.get(id).ok_or_else(missing)
}

pub(super) async fn start(
    State(context): State<Context>,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, Refused> {
    let upgrade = upgrade(&mut request);
    let body = to_bytes(request.into_body(), BODY_MAX_BYTES).await;
    let body = body.map_err(|why| invalid(format!("cannot read the request: {why}")))?;
    let asked: ExecStartConfig = match body.is_empty() {
        true => ExecStartConfig::default(),
        false => parse(&body)?,
    };
    let mut exec = find(&context, &id)?;
    if asked.console_size.is_some() {
        exec.config.console_size = asked.console_size;
    }
    let container = container::find(&context.engine, &exec.container).await?;
    let Some(pid) = container.service.pid else {
        return Err(error(
            StatusCode::CONFLICT,
            format!("container {} is not running", container.id),
        ));
    };
    if !context.execs.begin(&id) {
        return Err(error(
            StatusCode::CONFLICT,
            format!("exec command {id} has already run"),
        ));
    }
    let detached = asked.detach.unwrap_or(false);
    if detached {
        exec.config.attach_stdin = Some(false);
    }
    let options = &context.paths.options;
    let made = configured(
        &options.container(&exec.key).join("config.json"),
        &exec,
        pid,
    );
    let attached = match made {
        Ok(process) => exec::run(&context.execs, options, &exec, &process)
            .await
            .map_err(|error| format!("{error:#}")),
        Err(why) => Err(why),
    };
    let mut attached = attached.map_err(|why| {
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot exec: {why}"),
        )
    })?;
    let words = exec.config.cmd.clone().unwrap_or_default().join(" ");
    tell(
        &context,
        &exec.key,
        format!("exec_start: {words}"),
        &id,
        None,
    )
    .await?;
    let (telling, key) = (context.clone(), exec.key.clone());
    tokio::spawn(async move {
        let code = telling.execs.ended(&id).await;
        // When the engine ends there is nobody to tell.
        let _ = tell(&telling, &key, "exec_die".to_owned(), &id, code).await;
    });
    if detached {
        // Nobody listens, and still it must not stand still when it prints.
        tokio::spawn(async move { while attached.output.recv().await.is_some() {} });
        return Ok(StatusCode::OK.into_response());
    }
    let tty = exec.config.tty.unwrap_or(false);
    let wanted = Wanted {
        stdout: exec.config.attach_stdout.unwrap_or(false),
        stderr: exec.config.attach_stderr.unwrap_or(false),
        raw: tty,
    };
    let detach = match tty {
        true => Detach::parse(exec.config.detach_keys.as_deref()).map_err(invalid)?,
        false => Detach::never(),
    };
    Ok(carry(upgrade, attached, wanted, detach))
}

fn configured(config: &std::path::Path, exec: &Exec, pid: i32) -> Result<Value, String> {
    let text = fs::read(config).map_err(|why| format!("{}: {why}", config.display()))?;
    let container: Value =
        serde_json::from_slice(&text).map_err(|why| format!("{}: {why}", config.display()))?;
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    process::build(&container, &exec.config, &root)
}

pub(super) async fn inspect(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Json<ExecInspectResponse>, Refused> {
    let exec = find(&context, &id)?;
    let config = exec.config;
    let (program, arguments) = match config.cmd.as_deref() {
        Some([program, arguments @ ..]) => (program.clone(), arguments.to_vec()),
        _ => (String::new(), Vec::new()),
    };
    Ok(Json(ExecInspectResponse {
        can_remove: Some(false),
        detach_keys: config.detach_keys,
        id: Some(exec.id),
        running: Some(exec.progress == Progress::Running),
        exit_code: match exec.progress {
            Progress::Ended(code) => Some(code.into()),
            _ => None,
        },
        process_config: Some(ProcessConfig {
            privileged: config.privileged,
            user: config.user,
            tty: config.tty,
            entrypoint: Some(program),
            arguments: Some(arguments),
        }),
        open_stdin: config.attach_stdin,
        open_stderr: config.attach_stderr,
        open_stdout: config.attach_stdout,
        container_id: Some(exec.container),
        pid: Some(exec.pid.unwrap_or(0).into()),
    }))
}

pub(super) async fn resize(
    State(context): State<Context>,
    Path(id): Path<String>,
    Query(size): Query<Size>,
) -> Result<StatusCode, Refused> {
    let exec = find(&context, &id)?;
    let (rows, columns) = size.lines_and_columns();
    if let Some(master) = exec.terminal {
        terminal::resize(&*master, rows, columns).map_err(|why| {
            error(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot resize: {why}"),
            )
        })?;
    }
    Ok(StatusCode::OK)
}
