//! Service definitions: the Compose specification's model, and the files it is read from.
//!
//! - [`service`]: one service, every key that is understood
//! - [`values`], [`lists`], [`volume`], [`network`]: the shapes that its values take
//! - [`load`]: reads a directory of files; what is wrong comes with file, line and column
//! - [`position`]: where a key stands in a file
//!
//! Unknown keys are errors. There is no variable interpolation: values are taken literally.

pub mod lists;
pub mod load;
pub mod network;
pub mod position;
pub mod service;
pub mod values;
pub mod volume;

pub use load::{Loaded, load_directory};
pub use network::NetworkMode;
pub use position::Position;
pub use service::{
    Condition, Dependency, Namespace, Ready, Request, SecurityOption, Service, Slice,
};
pub use values::Restart;

use std::path::PathBuf;
use std::time::Duration;

/// Where a definition comes from, and so what stands beside it unasked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A file: a service of the system, with `/run` and `/tmp` in memory and a socket for sd_notify.
    #[default]
    Service,
    /// A client of Docker's API: as Docker makes containers.
    Container,
}

/// A service and where it was defined.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its name; the key of a container.
    pub name: String,
    /// Where it comes from.
    pub kind: Kind,
    /// The file it stands in.
    pub file: PathBuf,
    /// Where in that file its keys stand, for messages.
    pub positions: position::Keys,
    /// What is said of it.
    pub service: Service,
}

impl Definition {
    /// Names of the services that it only starts after.
    pub fn after(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .service
            .keelson
            .after
            .0
            .iter()
            .map(|text| text.0.clone())
            .collect();
        if let Some(label) = self.service.labels.0.get("io.rancher.os.after") {
            names.extend(
                label
                    .split(',')
                    .map(|name| name.trim().to_owned())
                    .filter(|name| !name.is_empty()),
            );
        }
        names
    }

    /// When it counts as ready.
    pub fn ready(&self) -> Ready {
        let attached = self
            .service
            .labels
            .0
            .get("io.rancher.os.detach")
            .is_some_and(|value| value == "false");
        self.service.keelson.ready.unwrap_or(if attached {
            Ready::Exit
        } else {
            Ready::Started
        })
    }

    /// How long it may take until it is ready; `None` is for ever.
    pub fn start_timeout(&self) -> Option<Duration> {
        match (self.service.keelson.start_timeout, self.ready()) {
            (Some(span), _) => Some(span.0),
            (None, Ready::Exit) => None,
            (None, _) if self.kind == Kind::Container => None,
            (None, _) => Some(Duration::from_secs(90)),
        }
    }

    /// How long it may take to end after its stop signal.
    pub fn stop_grace_period(&self) -> Duration {
        self.service
            .stop_grace_period
            .map_or(Duration::from_secs(10), |span| span.0)
    }

    /// The half of the cgroup tree that it lives in.
    pub fn slice(&self) -> Slice {
        self.service.cgroup_parent.unwrap_or(match self.kind {
            Kind::Service => Slice::System,
            Kind::Container => Slice::User,
        })
    }

    /// Program and arguments.
    pub fn arguments(&self) -> Vec<String> {
        let mut words = self.service.entrypoint.0.clone();
        words.extend(self.service.command.0.iter().cloned());
        words
    }

    /// The capabilities that it keeps, in the kernel's order.
    pub fn capabilities(&self) -> Vec<String> {
        let has = |list: &[values::Capability], name: &str| {
            list.iter()
                .any(|capability| capability.0 == name || capability.0 == "ALL")
        };
        let service = &self.service;
        crate::spec::CAPABILITIES
            .iter()
            .filter(|name| {
                service.privileged
                    || (has(&service.cap_add, name)
                        && !service
                            .cap_drop
                            .iter()
                            .any(|capability| capability.0 == **name))
            })
            .map(|name| (*name).to_owned())
            .collect()
    }

    /// Whether setuid programs and file capabilities gain nothing: yes, unless told otherwise or privileged.
    pub fn no_new_privileges(&self) -> bool {
        let mut answer = !self.service.privileged;
        for option in &self.service.security_opt {
            if let SecurityOption::NoNewPrivileges(value) = option {
                answer = *value;
            }
        }
        answer
    }

    /// Whether this option stands in `security_opt`, or is implied by `privileged`.
    pub fn unconfined(&self, option: SecurityOption) -> bool {
        self.service.privileged || self.service.security_opt.contains(&option)
    }
}
