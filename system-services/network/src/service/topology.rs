//! Interfaces that are made, names, and who is a part of what.

use std::collections::BTreeSet;

use keelson_config::network::Kind;

use super::Service;

impl Service {
    /// Makes what the configuration has and the kernel lacks, removes what was made for an earlier one, and puts members where
    /// they belong. What cannot be done yet is done when the links that it needs are there.
    pub(super) async fn build(&mut self) {
        let virtuals: Vec<_> = self.config.virtuals().cloned().collect();
        let wanted: BTreeSet<&str> = virtuals.iter().map(|one| one.name.as_str()).collect();
        let old: Vec<(u32, String)> = self
            .links
            .values()
            .filter(|link| link.ours && !wanted.contains(link.name.as_str()))
            .map(|link| (link.index, link.name.clone()))
            .collect();
        for (index, name) in old {
            log!(Info, "{name}: is no longer wanted");
            if let Err(error) = self.kernel.delete(index).await {
                log!(Error, "{name}: {error}");
            }
        }
        for interface in &virtuals {
            let name = &interface.name;
            if self.links.values().any(|link| link.name == *name) {
                continue;
            }
            let below = match &interface.kind {
                Kind::Vlan(vlan) => match self.index_of(&vlan.link) {
                    None => continue,
                    index => index,
                },
                _ => None,
            };
            match self.kernel.create(interface, below).await {
                Ok(()) => log!(Info, "{name}: made"),
                Err(error) => self.say_once(name, &error.to_string()),
            }
        }
        let members: Vec<(u32, u32, String)> = self
            .interfaces
            .values()
            .filter_map(|interface| {
                let name = interface.settings.controller.as_ref()?;
                let controller = self.index_of(name)?;
                let link = &interface.link;
                (link.controller != Some(controller))
                    .then(|| (link.index, controller, link.name.clone()))
            })
            .collect();
        for (index, controller, name) in members {
            let is_bond = self
                .links
                .get(&controller)
                .is_some_and(|link| link.kind == "bond");
            match self.kernel.set_controller(index, controller, is_bond).await {
                Ok(()) => {
                    // So that it is not done again before the kernel announces it.
                    if let Some(interface) = self.interfaces.get_mut(&index) {
                        interface.link.controller = Some(controller);
                    }
                    log!(Debug, "{name}: is a part of another interface now");
                }
                Err(error) => self.say_once(&name, &error.to_string()),
            }
        }
    }

    /// The link of an interface by its name in the configuration, or its own.
    fn index_of(&self, name: &str) -> Option<u32> {
        let mut interfaces = self.interfaces.iter();
        let by_id = interfaces.find(|(_, interface)| interface.settings.id == name);
        let by_name = || self.links.values().find(|link| link.name == name);
        by_id
            .map(|(index, _)| *index)
            .or_else(|| by_name().map(|link| link.index))
    }

    fn say_once(&mut self, name: &str, message: &str) {
        if self.said.insert(format!("{name}: {message}")) {
            log!(Error, "{name}: {message}");
        }
    }
}
