//! Name servers: containers have a copy of the host's resolv.conf(5), which changes when the network does.

use super::entry::Task;
use super::{Engine, Input, Shared, files};
use crate::changes::Changes;
use crate::rootfs::make_directory;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Hears of every change of the host's file; `None` when that is not one that the network service writes.
pub(super) fn watch(shared: &Rc<Shared>) -> Option<Task> {
    let target: PathBuf = std::fs::read_link(files::RESOLVER).ok()?;
    let directory = Path::new("/etc").join(target).parent()?.to_owned();
    let begun = make_directory(&directory).and_then(|()| Ok(Changes::of(&directory)?));
    let changes = match begun {
        Ok(changes) => changes,
        Err(error) => {
            let directory = directory.display();
            shared.console.error(&format!(
                "containers do not hear of new name servers: cannot watch {directory}: {error:#}"
            ));
            return None;
        }
    };
    let inputs = shared.inputs.clone();
    Some(Task::spawn(async move {
        while changes.next().await.is_ok() {
            let _ = inputs.send(Input::Resolver);
        }
    }))
}

impl Engine {
    /// Tells all containers that run which name servers the host has.
    pub(super) fn tell_name_servers(&self) {
        let host = files::read(files::RESOLVER);
        let running = self.services.iter();
        for (name, entry) in running.filter(|(_, entry)| entry.state().process().is_some()) {
            let container = self.shared.options.container(name);
            let told = files::rewrite_resolver(&entry.definition.service.names, &container, &host);
            if let Err(error) = told {
                let title = entry.title();
                self.shared.console.error(&format!(
                    "container {title}: cannot tell it the name servers: {error:#}"
                ));
            }
        }
    }
}
