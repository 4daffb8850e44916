//! Interfaces of containers: made by the network service's program, which speaks rtnetlink.

use super::{Endpoint, Network};
use anyhow::{Context, bail};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// One interface of a container.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(super) network: Network,
    pub(super) endpoint: Endpoint,
    /// The container's packets to the rest of the world leave here.
    pub(super) is_default: bool,
}

impl Wire {
    /// Whether it leads to this place.
    pub(crate) fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.endpoint.id == endpoint.id
    }
}

/// Who makes them.
#[derive(Debug)]
pub(super) struct Wirer {
    program: PathBuf,
}

impl Wirer {
    /// With the network service's image at `image`.
    pub(super) fn new(image: &Path) -> Self {
        Self {
            program: image.join("usr/bin/keelson-network"),
        }
    }

    /// Gives the container whose first process is `pid` an interface; a bridge that is not there is made.
    ///
    /// # Errors
    /// What the kernel refused. What is half done goes with the container.
    pub(super) async fn connect(&self, pid: i32, wire: &Wire) -> anyhow::Result<()> {
        let (network, endpoint) = (&wire.network, &wire.endpoint);
        let prefix_len = endpoint.prefix_len;
        let mut command = Command::new(&self.program);
        command.arg("connect").arg("--pid").arg(pid.to_string());
        command.arg("--bridge").arg(network.bridge());
        command
            .arg("--bridge-address")
            .arg(format!("{}/{prefix_len}", network.gateway));
        command
            .arg("--host-interface")
            .arg(&endpoint.host_interface);
        command.arg("--interface").arg(&endpoint.interface);
        command
            .arg("--address")
            .arg(format!("{}/{prefix_len}", endpoint.address));
        command.arg("--mac").arg(endpoint.mac_text());
        if wire.is_default {
            command.arg("--default-route");
        }
        run(command).await
    }

    /// Removes an interface of the host, if it is there: a bridge, or a container's with what is at its other end.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) async fn remove(&self, interface: &str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("remove").arg(interface);
        run(command).await
    }

    /// Has the packets of a container to the rest of the world go to `gateway`.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) async fn route(&self, pid: i32, gateway: Ipv4Addr) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command
            .arg("route")
            .arg(pid.to_string())
            .arg(gateway.to_string());
        run(command).await
    }
}

async fn run(mut command: Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.context("cannot run keelson-network")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        // It begins with the priority of a message, as the log service reads it.
        let said = said.trim();
        bail!("{}", said.split_once('>').map_or(said, |(_, rest)| rest));
    }
    Ok(())
}
