//! A container's networks and ports, as Docker's API shows them.

use crate::network::{Connection, Protocol};
use bollard_stubs::models::{
    EndpointIpamConfig, EndpointSettings, PortBinding, PortMap, PortSummary, PortSummaryTypeEnum,
};
use std::collections::HashMap;

/// A container's places in the form of `NetworkSettings.Networks`.
pub(super) fn places(
    connection: &Connection,
    asked: Option<&HashMap<String, EndpointSettings>>,
) -> HashMap<String, EndpointSettings> {
    let mut all: HashMap<String, EndpointSettings> = asked.cloned().unwrap_or_default();
    for endpoint in &connection.endpoints {
        let settings = all.entry(endpoint.network.clone()).or_default();
        let config: Option<EndpointIpamConfig> = settings.ipam_config.take();
        *settings = EndpointSettings {
            ipam_config: config,
            aliases: Some(endpoint.aliases.clone()),
            mac_address: Some(endpoint.mac_text()),
            network_id: Some(endpoint.network_id.clone()),
            endpoint_id: Some(endpoint.id.clone()),
            gateway: Some(endpoint.gateway.to_string()),
            ip_address: Some(endpoint.address.to_string()),
            ip_prefix_len: Some(endpoint.prefix_len.into()),
            ..EndpointSettings::default()
        };
    }
    all
}

/// Ports in the form of `NetworkSettings.Ports`: exposed ones without a port of the host are there, too.
pub(super) fn ports(connection: &Connection, exposed: &[String]) -> PortMap {
    let mut map: PortMap = exposed.iter().map(|port| (port.clone(), None)).collect();
    for port in &connection.published {
        let key = format!("{}/{}", port.target, port.protocol);
        let bindings = map.entry(key).or_default().get_or_insert_default();
        bindings.push(PortBinding {
            host_ip: Some(port.address.to_string()),
            host_port: Some(port.port.to_string()),
        });
    }
    map
}

/// Ports in the form of lists.
pub(super) fn port_list(connection: &Connection, exposed: &[String]) -> Vec<PortSummary> {
    let kind = |protocol| match protocol {
        Protocol::Tcp => PortSummaryTypeEnum::TCP,
        Protocol::Udp => PortSummaryTypeEnum::UDP,
    };
    let mut list: Vec<PortSummary> = connection
        .published
        .iter()
        .map(|port| PortSummary {
            ip: Some(port.address.to_string()),
            private_port: port.target,
            public_port: Some(port.port),
            typ: Some(kind(port.protocol)),
        })
        .collect();
    for port in exposed {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        if let (Ok(number), Ok(protocol)) = (number.parse(), protocol.parse::<Protocol>())
            && !list
                .iter()
                .any(|known| known.private_port == number && known.typ == Some(kind(protocol)))
        {
            list.push(PortSummary {
                ip: None,
                private_port: number,
                public_port: None,
                typ: Some(kind(protocol)),
            });
        }
    }
    list
}
