//! What `keelson status --json` says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::harness::ssh::Ssh;

/// The part of the answer that tests look at.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The kernel's hostname.
    pub hostname: String,
    /// The state partition.
    pub state: Storage,
    /// All services.
    pub services: Vec<Service>,
    /// What went wrong.
    pub failures: Vec<Failure>,
    /// When all services had settled; null before.
    pub boot_complete_us: Option<u64>,
}

/// Whether state is kept.
#[derive(Clone, Debug, Deserialize)]
pub struct Storage {
    /// False: in RAM.
    pub persistent: bool,
}

/// A system service.
#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `ready`, `finished`, `failed` ...
    pub state: String,
    /// Why, when it is not well.
    pub detail: Option<String>,
    /// The container's first process, as the host counts.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
}

/// Something that went wrong.
#[derive(Clone, Debug, Deserialize)]
pub struct Failure {
    /// Service or part of the system.
    pub source: String,
    /// What happened.
    pub message: String,
    /// File at fault.
    pub file: Option<String>,
    /// Line in it, from 1.
    pub line: Option<u64>,
    /// Column in it, from 1.
    pub column: Option<u64>,
}

impl Status {
    /// Asks the machine.
    ///
    /// # Errors
    /// When it does not answer, or not in this form.
    pub fn read(ssh: &Ssh) -> Result<Self> {
        let text = ssh.check("keelson status --json")?;
        serde_json::from_str(&text)
            .with_context(|| format!("reading `keelson status --json`: {text}"))
    }

    /// Asks until every service has settled.
    ///
    /// # Errors
    /// At the deadline, naming the services that have not.
    pub fn wait_settled(ssh: &Ssh, deadline: Duration) -> Result<Self> {
        let until = Instant::now() + deadline;
        loop {
            let status = Status::read(ssh)?;
            if status.boot_complete_us.is_some() && status.unsettled().is_empty() {
                return Ok(status);
            }
            ensure!(
                Instant::now() < until,
                "after {deadline:?} the boot is not complete: {:?}",
                status.unsettled()
            );
        }
    }

    /// The service called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn service(&self, name: &str) -> Result<&Service> {
        self.services
            .iter()
            .find(|service| service.name == name)
            .with_context(|| format!("no service {name}"))
    }

    /// Host process ids of the services that run, by name.
    pub fn pids(&self) -> BTreeMap<String, i32> {
        self.services
            .iter()
            .filter_map(|service| Some((service.name.clone(), service.pid?)))
            .collect()
    }

    fn unsettled(&self) -> Vec<String> {
        let moving = ["waiting", "starting", "backoff", "stopping"];
        let list = self
            .services
            .iter()
            .filter(|service| moving.contains(&service.state.as_str()));
        list.map(|service| {
            format!(
                "{} is {} ({:?})",
                service.name, service.state, service.detail
            )
        })
        .collect()
    }
}
