//! What services may do, and why.

use keelson_engine::api::Service;

use super::{all_services, find};
use crate::failure::Failure;
use crate::output::{Output, table};

/// Shows the privileges of these services, or of all.
pub(super) fn run(names: &[String], output: &mut Output<'_>) -> Result<(), Failure> {
    let mut services = all_services()?;
    for name in names {
        find(name, &services)?;
    }
    services.retain(|service| names.is_empty() || names.contains(&service.name));
    if !output.json {
        return output.text(&show(&services));
    }
    let privileges: Vec<_> = services
        .iter()
        .map(|service| {
            serde_json::json!({
                "name": service.name,
                "privileged": service.privileges.privileged,
                "capabilities": service.privileges.capabilities,
                "all": service.privileges.all,
            })
        })
        .collect();
    output.value(&privileges)
}

fn show(services: &[Service]) -> String {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for service in services {
        let mut name = service.name.clone();
        if service.privileges.all.is_empty() {
            rows.push([name, "nothing".to_owned(), String::new()]);
            continue;
        }
        for privilege in &service.privileges.all {
            let why = privilege.why.clone().unwrap_or_default();
            rows.push([std::mem::take(&mut name), privilege.what.clone(), why]);
        }
    }
    table(["SERVICE", "MAY USE", "WHY"], &rows)
}

#[cfg(test)]
mod tests {
    use keelson_engine::api::Privilege;

    use super::super::tests::service;
    use super::*;

    #[test]
    fn privileges_are_a_table_with_reasons() {
        let mut network = service("network");
        network.privileges.all = vec![
            Privilege {
                what: "NET_ADMIN".into(),
                why: Some("links, addresses".into()),
            },
            Privilege {
                what: "NET_RAW".into(),
                why: None,
            },
        ];
        assert_eq!(
            show(&[service("log"), network]),
            "SERVICE  MAY USE    WHY\n\
             log      nothing\n\
             network  NET_ADMIN  links, addresses\n         \
             NET_RAW\n"
        );
    }
}
