//! Bridges of the system engine's containers, and the pairs of interfaces that connect containers to them (veth(4)).
//!
//! The engine runs this program for it: what speaks rtnetlink is in the system only once.

use anyhow::{Context, Result, anyhow, bail};
use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use nix::sched::{CloneFlags, setns};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

/// How the program is called for this.
pub const USAGE: &str = "\
usage: keelson-network connect --pid NUMBER --bridge NAME --bridge-address ADDRESS/BITS --host-interface NAME
                               --interface NAME --address ADDRESS/BITS --mac ADDRESS [--default-route]
       keelson-network remove INTERFACE
       keelson-network route PID GATEWAY";

/// An IPv4 address, and how many bits of it are the network's.
pub type Address = (Ipv4Addr, u8);

/// An interface of a container, and the bridge at its other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// A process in the container's network namespace.
    pub pid: u32,
    /// The bridge of the host; it is made when it is not there.
    pub bridge: String,
    /// The host's address in the network.
    pub bridge_address: Address,
    /// The interface at the bridge.
    pub host_interface: String,
    /// The container's interface.
    pub interface: String,
    /// The container's address.
    pub address: Address,
    /// The hardware address of the container's interface.
    pub mac: [u8; 6],
    /// The container's packets to the rest of the world go to the bridge.
    pub default_route: bool,
}

impl Link {
    /// Reads what follows `connect`.
    ///
    /// # Errors
    /// Names the argument that is wrong or missing.
    pub fn parse(mut parser: lexopt::Parser) -> Result<Self> {
        use lexopt::prelude::{Long, ValueExt};
        let (mut pid, mut mac) = (None, None);
        let (mut bridge, mut host_interface, mut interface) = (None, None, None);
        let (mut bridge_address, mut address) = (None, None);
        let mut default_route = false;
        while let Some(argument) = parser.next()? {
            match argument {
                Long("pid") => pid = Some(parser.value()?.parse()?),
                Long("bridge") => bridge = Some(parser.value()?.string()?),
                Long("bridge-address") => {
                    bridge_address = Some(parser.value()?.parse_with(read_address)?);
                }
                Long("host-interface") => host_interface = Some(parser.value()?.string()?),
                Long("interface") => interface = Some(parser.value()?.string()?),
                Long("address") => address = Some(parser.value()?.parse_with(read_address)?),
                Long("mac") => mac = Some(parser.value()?.parse_with(read_mac)?),
                Long("default-route") => default_route = true,
                other => return Err(other.unexpected().into()),
            }
        }
        let missing = |name: &'static str| move || anyhow!("{name} is missing");
        Ok(Self {
            pid: pid.ok_or_else(missing("--pid"))?,
            bridge: bridge.ok_or_else(missing("--bridge"))?,
            bridge_address: bridge_address.ok_or_else(missing("--bridge-address"))?,
            host_interface: host_interface.ok_or_else(missing("--host-interface"))?,
            interface: interface.ok_or_else(missing("--interface"))?,
            address: address.ok_or_else(missing("--address"))?,
            mac: mac.ok_or_else(missing("--mac"))?,
            default_route,
        })
    }
}

fn read_address(text: &str) -> Result<Address> {
    let (address, bits) = text.split_once('/').context("no prefix length")?;
    match bits.parse() {
        Ok(bits) if bits <= 32 => Ok((address.parse()?, bits)),
        _ => bail!("a prefix has up to 32 bits"),
    }
}

fn read_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    let bytes = bytes?.try_into();
    bytes.map_err(|_| anyhow!("a hardware address has six bytes"))
}

/// Connects a container to its bridge. This thread is in the container's network namespace afterwards.
///
/// # Errors
/// What the kernel refused. What is half done goes with the container.
pub async fn connect(link: &Link) -> Result<()> {
    let namespace = File::open(format!("/proc/{}/ns/net", link.pid))
        .context("the process ended before it had a network")?;
    let host = netlink()?;
    let bridge = bridge(&host, link).await?;
    let added = host.link().add(veth(link, bridge, &namespace)).execute();
    let name = &link.host_interface;
    added
        .await
        .with_context(|| format!("cannot make the interface {name}"))?;
    // It may talk to itself by the host's address.
    write(&format!("/sys/class/net/{name}/brport/hairpin_mode"), "1")?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    let configured = configure(&netlink()?, link).await;
    configured.with_context(|| format!("cannot configure {}", link.interface))
}

/// Removes an interface, if it is there; one end of a pair takes the other with it.
///
/// # Errors
/// What the kernel refused.
pub async fn remove(interface: &str) -> Result<()> {
    let host = netlink()?;
    match index(&host, interface).await? {
        None => Ok(()),
        Some(index) => {
            let removed = host.link().del(index).execute().await;
            removed.with_context(|| format!("cannot remove {interface}"))
        }
    }
}

/// Has the container of a process reach the rest of the world by `gateway`; fine when it does already. This thread is
/// in the container's network namespace afterwards.
///
/// # Errors
/// What the kernel refused.
pub async fn route(pid: u32, gateway: Ipv4Addr) -> Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).context("the process has ended")?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(gateway)
        .build();
    match netlink()?.route().add(route).execute().await {
        Err(error) if is(&error, libc::EEXIST) => Ok(()),
        other => other.context("cannot set the default route"),
    }
}

/// A connection to the kernel in the network namespace that this thread is in.
fn netlink() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

fn is(error: &rtnetlink::Error, number: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -number)
}

async fn index(handle: &Handle, name: &str) -> Result<Option<u32>> {
    let get = handle.link().get().match_name(name.to_owned());
    match get.execute().try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if is(&error, libc::ENODEV) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot look for {name}")),
    }
}

/// The index of the bridge.
async fn bridge(host: &Handle, link: &Link) -> Result<u32> {
    let name = &link.bridge;
    if let Some(index) = index(host, name).await? {
        return Ok(index);
    }
    match host
        .link()
        .add(LinkBridge::new(name).build())
        .execute()
        .await
    {
        // Another container's start was quicker.
        Err(error) if is(&error, libc::EEXIST) => {}
        other => other.with_context(|| format!("cannot make the bridge {name}"))?,
    }
    let index = index(host, name).await?;
    let index = index.with_context(|| format!("the bridge {name} went away"))?;
    let (address, prefix_len) = link.bridge_address;
    let added = host.address().add(index, IpAddr::V4(address), prefix_len);
    let added = added.replace().execute().await;
    added.with_context(|| format!("cannot give {name} its address"))?;
    write("/proc/sys/net/ipv4/ip_forward", "1")?;
    // Published ports are reached at 127.0.0.1 too; the packet filter keeps others from using it.
    write(
        &format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"),
        "1",
    )?;
    Ok(index)
}

fn veth(link: &Link, bridge: u32, namespace: &File) -> LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(link.interface.clone())
        .address(link.mac.to_vec())
        .setns_by_fd(namespace.as_raw_fd())
        .build();
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(link.host_interface.clone())
        .controller(bridge)
        .up()
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

async fn configure(inside: &Handle, link: &Link) -> Result<()> {
    let index = index(inside, &link.interface).await?;
    let index = index.context("it is not there")?;
    let (address, prefix_len) = link.address;
    let added = inside.address().add(index, IpAddr::V4(address), prefix_len);
    added.execute().await.context("its address")?;
    let up = LinkUnspec::new_with_index(index).up().build();
    let brought = inside.link().change(up).execute().await;
    brought.context("bringing it up")?;
    if link.default_route {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(index)
            .gateway(link.bridge_address.0)
            .build();
        let added = inside.route().add(route).execute().await;
        added.context("its default route")?;
    }
    Ok(())
}

fn write(path: &str, value: &str) -> Result<()> {
    let written: io::Result<()> = fs::write(path, value);
    written.with_context(|| format!("cannot write {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Link> {
        Link::parse(lexopt::Parser::from_args(line.split(' ')))
    }

    const WHOLE: &str = "--pid 7 --bridge b0 --bridge-address 10.0.0.1/24 --host-interface v0 --interface eth0 --address 10.0.0.2/24 --mac 02:42:0a:00:00:02";

    #[test]
    fn a_command_line_is_read_whole_or_not_at_all() {
        let link = parse(WHOLE).unwrap();
        assert_eq!(link.address, ([10, 0, 0, 2].into(), 24));
        assert_eq!(link.mac, [2, 0x42, 10, 0, 0, 2]);
        assert!(!link.default_route);
        for option in [
            "--pid 7 ",
            "--bridge b0 ",
            " --mac 02:42:0a:00:00:02",
            "/24",
            ":02",
        ] {
            assert!(parse(&WHOLE.replace(option, "")).is_err(), "{option}");
        }
        assert!(parse(&format!("{WHOLE} --other")).is_err());
    }
}
