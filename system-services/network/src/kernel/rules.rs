//! Policy rules (ip-rule(8)) of the configuration, over rtnetlink.

use std::net::IpAddr;

use futures_util::stream::TryStreamExt;
use keelson_config::network::{Cidr, Rule};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::IpVersion;

use super::declared::DECLARED;
use super::{Kernel, KernelError, failed, unless_gone};

/// The main routing table.
const MAIN: u32 = 254;

impl Kernel {
    /// Makes the rules those that are wanted; rules of others stay. One that cannot be set costs that one alone.
    ///
    /// # Errors
    /// What the kernel answers, the first of it.
    pub async fn set_rules(&self, wanted: &[Rule]) -> Result<(), KernelError> {
        let mut present: Vec<RuleMessage> = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let some: Vec<RuleMessage> = self
                .handle
                .rule()
                .get(version)
                .execute()
                .try_collect()
                .await
                .map_err(failed("listing the policy rules"))?;
            present.extend(some);
        }
        let ours = RuleAttribute::Protocol(RouteProtocol::Other(DECLARED));
        present.retain(|message| message.attributes.contains(&ours));
        let mut result = Ok(());
        for message in &present {
            if !wanted.iter().any(|rule| is(rule, message)) {
                let removed = self.handle.rule().del(message.clone()).execute().await;
                let removed = unless_gone(removed).map_err(failed("removing a policy rule"));
                result = result.and(removed);
            }
        }
        for (place, rule) in wanted.iter().enumerate() {
            let is_there = present.iter().any(|message| is(rule, message));
            if is_there || wanted.iter().take(place).any(|earlier| earlier == rule) {
                continue;
            }
            let mut request = self.handle.rule().add();
            *request.message_mut() = message(rule);
            let added = request.execute().await;
            result = result.and(added.map_err(failed("adding a policy rule")));
        }
        result
    }
}

/// Whether the kernel's rule is the one that is wanted: it has filled in what was not said.
fn is(wanted: &Rule, present: &RuleMessage) -> bool {
    let found = read(present);
    let said = |cidr: Option<Cidr>| cidr.filter(|cidr| cidr.prefix != 0);
    message(wanted).header.family == present.header.family
        && said(wanted.from) == said(found.from)
        && said(wanted.to) == said(found.to)
        && wanted.table.unwrap_or(MAIN) == found.table.unwrap_or(MAIN)
        && (wanted.priority.is_none() || wanted.priority == found.priority)
        && wanted.mark == found.mark
        && wanted.tos == found.tos
}

fn read(message: &RuleMessage) -> Rule {
    let mut rule = Rule {
        table: Some(message.header.table.into()),
        tos: Some(message.header.tos).filter(|tos| *tos != 0),
        ..Rule::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => {
                rule.from = Some(Cidr {
                    address: *address,
                    prefix: message.header.src_len,
                });
            }
            RuleAttribute::Destination(address) => {
                rule.to = Some(Cidr {
                    address: *address,
                    prefix: message.header.dst_len,
                });
            }
            RuleAttribute::Table(table) => rule.table = Some(*table),
            RuleAttribute::Priority(priority) => rule.priority = Some(*priority),
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            _ => {}
        }
    }
    rule
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    let some = rule.from.or(rule.to).map(|cidr| cidr.address);
    message.header.family = match some {
        Some(IpAddr::V6(_)) => AddressFamily::Inet6,
        _ => AddressFamily::Inet,
    };
    message.header.action = RuleAction::ToTable;
    message.header.tos = rule.tos.unwrap_or(0);
    if let Some(from) = rule.from {
        message.header.src_len = from.prefix;
        message.attributes.push(RuleAttribute::Source(from.address));
    }
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix;
        message
            .attributes
            .push(RuleAttribute::Destination(to.address));
    }
    let attributes = [
        Some(RuleAttribute::Table(rule.table.unwrap_or(MAIN))),
        rule.priority.map(RuleAttribute::Priority),
        rule.mark.map(RuleAttribute::FwMark),
        Some(RuleAttribute::Protocol(RouteProtocol::Other(DECLARED))),
    ];
    message.attributes.extend(attributes.into_iter().flatten());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_survives_its_way_to_the_kernel_and_back() {
        let rule = Rule {
            from: Some("192.0.2.0/24".parse().unwrap()),
            to: None,
            table: Some(700),
            priority: Some(50),
            mark: Some(3),
            tos: None,
        };
        assert_eq!(read(&message(&rule)), rule);
    }
}
