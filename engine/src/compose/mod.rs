//! Service definitions: the Compose specification's model, and the files it is read from.
//!
//! - [`service`]: one service, every key that is understood
//! - [`values`], [`lists`], [`volume`], [`network`], [`names`], [`port`], [`env_file`], [`socket`], [`block_io`]: the shapes that its values take
//! - [`load`]: reads directories of files; what is wrong comes with file, line and column
//! - [`environment`]: what variables stand for; `interpolate`: puts that into what is read
//! - `check`: what the types cannot tell
//! - [`position`]: where a key stands in a file, and the reason that is given for it
//!
//! Unknown keys are errors.

pub mod block_io;
mod check;
pub mod env_file;
pub mod environment;
mod interpolate;
pub mod lists;
pub mod load;
pub mod names;
pub mod network;
pub mod port;
pub mod position;
pub mod service;
pub mod socket;
pub mod values;
pub mod volume;

pub(crate) use check::valid_name;
pub use environment::Environment;
pub use load::{Loaded, load_all};
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
    /// It is the machine's own, not the OS image's.
    pub own: bool,
    /// The file it stands in.
    pub file: PathBuf,
    /// Where in that file its keys stand, for messages.
    pub positions: position::Keys,
    /// Comments beside what it is allowed.
    pub reasons: Vec<position::Reason>,
    /// What is said of it.
    pub service: Service,
}

impl Definition {
    /// Names of the services that it only starts after.
    pub fn after(&self) -> Vec<String> {
        let own = self.service.keelson.after.0.iter();
        let mut names: Vec<String> = own.map(|text| text.0.clone()).collect();
        names.extend(self.label_list("io.rancher.os.after"));
        names
    }

    /// Names of services that only start after this one (RancherOS' label).
    pub fn before(&self) -> Vec<String> {
        self.label_list("io.rancher.os.before").collect()
    }

    /// Whether it is only there for others to refer to, and never runs by itself (RancherOS' label).
    pub fn is_create_only(&self) -> bool {
        self.label_is("io.rancher.os.createonly", "true")
    }

    /// Whether the definitions are read again when it has ended (RancherOS' label).
    pub fn reloads_config(&self) -> bool {
        self.label_is("io.rancher.os.reloadconfig", "true")
    }

    fn label_is(&self, label: &str, value: &str) -> bool {
        let found = self.service.labels.0.get(label);
        found.is_some_and(|found| found == value)
    }

    fn label_list(&self, label: &str) -> impl Iterator<Item = String> {
        let names = self.service.labels.0.get(label).into_iter();
        names
            .flat_map(|names| names.split(','))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
    }

    /// When it counts as ready.
    pub fn ready(&self) -> Ready {
        let attached = self.label_is("io.rancher.os.detach", "false");
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
