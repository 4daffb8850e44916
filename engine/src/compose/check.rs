//! What the types of a definition cannot tell.

use super::network::NetworkMode;
use super::service::Ready;
use super::socket::Start;
use super::{Definition, Namespace};

impl Definition {
    /// The first thing that is wrong with it, with the key at fault.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let service = &self.service;
        if !valid_name(&self.name) {
            let rule = "lower-case letters, digits, `-`, `_` and `.`, beginning with a letter or digit, at most 63";
            return Err(("", format!("`{}` is not a service name: {rule}", self.name)));
        }
        if self.arguments().is_empty() && crate::images::is_of_the_os(&service.image) {
            return Err((
                "command",
                "there is no `command` and no `entrypoint`: nothing to run".to_owned(),
            ));
        }
        if service
            .labels
            .0
            .get("io.rancher.os.scope")
            .is_some_and(|scope| scope != "system")
        {
            return Err((
                "labels",
                "`io.rancher.os.scope`: only services of the scope `system` run here; others are applications, which Docker runs".to_owned(),
            ));
        }
        if service.init {
            return Err((
                "init",
                "`init: true` is not supported: the service's program is the first process"
                    .to_owned(),
            ));
        }
        if self.ready() == Ready::Health && crate::healthcheck::Check::of(service).is_none() {
            return Err((
                "x-keelson.ready",
                "`ready: health` needs a `healthcheck` with a test".to_owned(),
            ));
        }
        if let Some(check) = &service.healthcheck {
            crate::healthcheck::command(check).map_err(|message| ("healthcheck", message))?;
        }
        if let Some(adjustment) = service
            .oom_score_adj
            .filter(|value| !(-1000..=1000).contains(value))
        {
            return Err((
                "oom_score_adj",
                format!("{adjustment} is not between -1000 and 1000"),
            ));
        }
        if let Some(limit) = service
            .pids_limit
            .filter(|limit| *limit < -1 || *limit == 0)
        {
            return Err((
                "pids_limit",
                format!("{limit} is not a limit: 1 or more, or -1 for none"),
            ));
        }
        for (name, _) in &service.ulimits.0 {
            if crate::spec::rlimit_name(name).is_none() {
                return Err(("ulimits", format!("there is no limit `{name}`")));
            }
        }
        if let Some(path) = service
            .working_dir
            .as_ref()
            .filter(|path| !path.starts_with('/'))
        {
            return Err(("working_dir", format!("`{path}` is not an absolute path")));
        }
        let directories = service.keelson.directories.iter();
        let changes = service.keelson.on_change.iter();
        for (key, path) in directories
            .map(|directory| ("x-keelson.directories", &directory.path))
            .chain(changes.map(|change| ("x-keelson.on_change", &change.path)))
        {
            if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
                return Err((key, format!("`{path}` is not an absolute path")));
            }
        }
        if service.keelson.keep_root && service.read_only {
            return Err((
                "x-keelson.keep_root",
                "nothing is written to a root that is `read_only`".to_owned(),
            ));
        }
        if let Some((key, message)) = self.wrong_network().or_else(|| self.wrong_sockets()) {
            return Err((key, message));
        }
        let mut changes = service.keelson.on_change.iter();
        if changes.any(|change| change.exec.is_empty()) {
            return Err(("x-keelson.on_change", "`exec` names no program".to_owned()));
        }
        Ok(())
    }

    /// Networks and ports that do not go together.
    fn wrong_network(&self) -> Option<(&'static str, String)> {
        let service = &self.service;
        let names_networks = service.given_networks.names().next().is_some();
        match &service.network_mode {
            Some(mode)
                if names_networks
                    && service.networks.first().map(|one| &one.network) != mode.network() =>
            {
                Some((
                    "networks",
                    format!(
                        "`networks` and `network_mode: {}` exclude each other",
                        mode.as_text()
                    ),
                ))
            }
            Some(NetworkMode::Network(_)) | None => None,
            Some(mode) if !service.ports.is_empty() => Some((
                "ports",
                format!(
                    "with `network_mode: {}` there is nothing to publish",
                    mode.as_text()
                ),
            )),
            Some(_) => None,
        }
    }

    fn wrong_sockets(&self) -> Option<(&'static str, String)> {
        let (service, sockets) = (&self.service, &self.service.keelson.sockets);
        let mut keys: Vec<String> = sockets.iter().map(|socket| socket.key()).collect();
        keys.sort();
        let twice = keys.windows(2).find(|pair| pair[0] == pair[1]);
        let message = match twice {
            Some(pair) => format!("{} stands twice", pair[0]),
            None if service.pid == Some(Namespace::Host) && !sockets.is_empty() => {
                "a service with `pid: host` cannot be told which process its sockets are for"
                    .to_owned()
            }
            None if sockets.is_empty() && service.keelson.start == Start::Socket => {
                return Some((
                    "x-keelson.start",
                    "`start: socket` needs `sockets`".to_owned(),
                ));
            }
            None => return None,
        };
        Some(("x-keelson.sockets", message))
    }
}

/// Names become file names, cgroup names and host names.
pub(crate) fn valid_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    name.len() <= 63
        && name.chars().next().is_some_and(plain)
        && name
            .chars()
            .all(|letter| plain(letter) || matches!(letter, '-' | '_' | '.'))
}
