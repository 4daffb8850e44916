//! `/networks`: bridges that containers are connected to.

use super::Context;
use super::container::{self, Container};
use super::error::{error, invalid, parse, refused};
use super::filters::Filters;
use super::list::pass_labels;
use crate::containers::moment;
use crate::network::{Endpoint, Network, New, predefined};
use crate::server::{Refusal, Refused, Request, ask};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use bollard_stubs::models::{
    EndpointResource, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
    NetworkCreateResponse, NetworkDisconnectRequest, NetworkInspect, NetworkPruneResponse,
};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// A network, and who is in it.
#[derive(Clone, Debug)]
pub struct View {
    /// The network.
    pub network: Network,
    /// Containers that run.
    pub members: Vec<Member>,
}

/// A container in a network.
#[derive(Clone, Debug)]
pub struct Member {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its place.
    pub endpoint: Endpoint,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    filters: Option<String>,
}

/// The networks that are no bridges, by name: each is its own driver.
const PREDEFINED: [&str; 2] = ["host", "none"];

/// All networks: the bridges, the host's, and none.
async fn all(context: &Context) -> Result<Vec<NetworkInspect>, Refused> {
    let views = ask(&context.engine, Request::Networks).await?;
    let mut all: Vec<NetworkInspect> = views.iter().map(inspected).collect();
    all.extend(PREDEFINED.map(|name| NetworkInspect {
        name: Some(name.to_owned()),
        id: Some(predefined(name)),
        driver: Some(if name == "none" { "null" } else { name }.to_owned()),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(Vec::new()),
            ..Ipam::default()
        }),
        ..blank()
    }));
    Ok(all)
}

fn blank() -> NetworkInspect {
    NetworkInspect {
        created: Some(humantime::format_rfc3339_nanos(moment(0)).to_string()),
        scope: Some("local".to_owned()),
        enable_ipv6: Some(false),
        internal: Some(false),
        attachable: Some(false),
        ingress: Some(false),
        config_only: Some(false),
        options: Some(HashMap::new()),
        labels: Some(HashMap::new()),
        containers: Some(HashMap::new()),
        ..NetworkInspect::default()
    }
}

fn inspected(view: &View) -> NetworkInspect {
    let network = &view.network;
    let members = view.members.iter().map(|member| {
        let endpoint = &member.endpoint;
        let resource = EndpointResource {
            name: Some(member.name.clone()),
            endpoint_id: Some(endpoint.id.clone()),
            mac_address: Some(endpoint.mac_text()),
            ipv4_address: Some(format!("{}/{}", endpoint.address, endpoint.prefix_len)),
            ipv6_address: Some(String::new()),
        };
        (member.id.clone(), resource)
    });
    NetworkInspect {
        name: Some(network.name.clone()),
        id: Some(network.id.clone()),
        created: Some(humantime::format_rfc3339_nanos(moment(network.created_us)).to_string()),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(vec![IpamConfig {
                subnet: Some(network.subnet.to_string()),
                gateway: Some(network.gateway.to_string()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        }),
        internal: Some(network.internal),
        options: Some(network.options.clone()),
        labels: Some(network.labels.clone()),
        containers: Some(members.collect()),
        ..blank()
    }
}

fn matches(network: &NetworkInspect, filters: &Filters) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let labels: BTreeMap<String, String> = network
        .labels
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let name = text(&network.name);
    let is_predefined = name == "bridge" || PREDEFINED.contains(&name.as_str());
    filters.pass("name", |part| name.contains(part))
        && filters.pass("id", |part| text(&network.id).starts_with(part))
        && filters.pass("driver", |driver| text(&network.driver) == driver)
        && filters.pass("scope", |scope| scope == "local")
        && filters.pass("type", |kind| (kind == "builtin") == is_predefined)
        && filters.pass("dangling", |word| {
            let unused = network.containers.as_ref().is_none_or(HashMap::is_empty);
            matches!(word, "true" | "1") == (unused && !is_predefined)
        })
        && pass_labels(filters, &labels)
}

pub(super) async fn list(
    State(context): State<Context>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Vec<NetworkInspect>>, Refused> {
    let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    let filters = Filters::parse(parameters.filters.as_deref(), &known)?;
    let mut networks = all(&context).await?;
    networks.retain(|network| matches(network, &filters));
    // Who is in them, only one that is asked for tells.
    for network in &mut networks {
        network.containers = Some(HashMap::new());
    }
    Ok(Json(networks))
}

fn missing(name: &str) -> Refused {
    error(StatusCode::NOT_FOUND, format!("network {name} not found"))
}

pub(super) async fn inspect(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<NetworkInspect>, Refused> {
    let mut networks = all(&context).await?;
    let exact = networks
        .iter()
        .position(|network| [&network.name, &network.id].contains(&&Some(name.clone())));
    if let Some(at) = exact {
        return Ok(Json(networks.swap_remove(at)));
    }
    networks.retain(|network| network.id.as_ref().is_some_and(|id| id.starts_with(&name)));
    match networks.len() {
        1 => Ok(Json(networks.swap_remove(0))),
        _ => Err(missing(&name)),
    }
}

pub(super) async fn create(
    State(context): State<Context>,
    body: Bytes,
) -> Result<(StatusCode, Json<NetworkCreateResponse>), Refused> {
    let new = new(parse(&body)?)?;
    let request = |answer| Request::AddNetwork(Box::new(new), answer);
    let network = ask(&context.engine, request).await?.map_err(refused)?;
    let response = NetworkCreateResponse {
        id: network.id,
        warning: String::new(),
    };
    Ok((StatusCode::CREATED, Json(response)))
}

/// What is not done here is refused, rather than left out in silence.
fn new(asked: NetworkCreateRequest) -> Result<New, Refused> {
    let unsupported = |what: &str| invalid(format!("the system engine does not do this: {what}"));
    if let Some(driver) = asked
        .driver
        .filter(|driver| !matches!(driver.as_str(), "" | "default" | "bridge"))
    {
        return Err(error(
            StatusCode::NOT_FOUND,
            format!("plugin \"{driver}\" not found"),
        ));
    }
    if asked.enable_ipv6 == Some(true) {
        return Err(unsupported("networks with IPv6"));
    }
    if asked.ingress == Some(true) || asked.config_only == Some(true) {
        return Err(unsupported("networks of a swarm"));
    }
    let configs = asked.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    if configs.len() > 1 {
        return Err(unsupported("networks with several subnets"));
    }
    let config = configs.into_iter().next().unwrap_or_default();
    if config.ip_range.is_some_and(|range| !range.is_empty()) {
        return Err(unsupported(
            "a range of addresses within a network's subnet",
        ));
    }
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let subnet = filled(config.subnet).map(|text| {
        text.parse()
            .map_err(|why| invalid(format!("invalid network config:\n{why}")))
    });
    let gateway = filled(config.gateway).map(|text| {
        text.parse()
            .map_err(|_| invalid(format!("invalid gateway address: {text}")))
    });
    Ok(New {
        name: asked.name,
        subnet: subnet.transpose()?,
        gateway: gateway.transpose()?,
        internal: asked.internal.unwrap_or(false),
        labels: asked.labels.unwrap_or_default(),
        options: asked.options.unwrap_or_default(),
    })
}

async fn remove_one(context: &Context, name: &str) -> Result<(), Refused> {
    let removed = ask(&context.engine, |answer| {
        Request::RemoveNetwork(name.to_owned(), answer)
    });
    removed.await?.map_err(|refusal| match refusal {
        Refusal::NoSuchService(name) => missing(&name),
        // Docker's word for what is in use.
        Refusal::Conflict(why) => error(StatusCode::FORBIDDEN, why),
        refusal => refused(refusal),
    })
}

pub(super) async fn remove(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    if PREDEFINED.contains(&name.as_str()) {
        let why = format!("{name} is a pre-defined network and cannot be removed");
        return Err(error(StatusCode::FORBIDDEN, why));
    }
    remove_one(&context, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The one that is meant, and the container that a client means.
async fn meant(
    context: &Context,
    network: &str,
    container: &str,
) -> Result<(String, Container), Refused> {
    // The container comes first, as in dockerd.
    let container = container::find(&context.engine, container).await?;
    let Json(network) = inspect(State(context.clone()), Path(network.to_owned())).await?;
    let name = network.name.unwrap_or_default();
    Ok((name, container))
}

pub(super) async fn connect(
    State(context): State<Context>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let asked: NetworkConnectRequest = parse(&body)?;
    let (network, container) = meant(&context, &name, &asked.container).await?;
    if PREDEFINED.contains(&network.as_str()) {
        let why = format!("container cannot be connected to the network {network}");
        return Err(error(StatusCode::FORBIDDEN, why));
    }
    let request = |answer| Request::JoinNetwork {
        key: container.key,
        network,
        settings: Box::new(asked.endpoint_config.unwrap_or_default()),
        answer,
    };
    ask(&context.engine, request).await?.map_err(refused)?;
    Ok(StatusCode::OK)
}

pub(super) async fn disconnect(
    State(context): State<Context>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let asked: NetworkDisconnectRequest = parse(&body)?;
    let (network, container) = meant(&context, &name, &asked.container).await?;
    let request = |answer| Request::LeaveNetwork {
        key: container.key,
        network,
        answer,
    };
    ask(&context.engine, request).await?.map_err(refused)?;
    Ok(StatusCode::OK)
}

/// Networks that no container which runs is in.
pub(super) async fn prune(
    State(context): State<Context>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<NetworkPruneResponse>, Refused> {
    let filters = Filters::parse(parameters.filters.as_deref(), &["label", "label!"])?;
    let mut deleted = Vec::new();
    for network in all(&context).await? {
        let name = network.name.clone().unwrap_or_default();
        let is_predefined = name == "bridge" || PREDEFINED.contains(&name.as_str());
        if !is_predefined
            && matches(&network, &filters)
            && remove_one(&context, &name).await.is_ok()
        {
            deleted.push(name);
        }
    }
    Ok(Json(NetworkPruneResponse {
        networks_deleted: Some(deleted),
    }))
}
