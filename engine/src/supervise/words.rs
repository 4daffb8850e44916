//! What services say about themselves, and what they ask of the engine.

use super::Engine;
use super::entry::Entry;
use crate::compose::Request;
use crate::lifecycle::Event;
use crate::notify::{Message, is_hostname};
use keelson_sys::control::{Action, ToInit};
use std::time::Duration;

/// Without PID 1: how long a shutdown that a service asked for may take.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

impl Engine {
    /// Hears a service.
    pub(super) fn said(&mut self, name: &str, message: Message) {
        if message.status.is_some()
            && let Some(entry) = self.services.get_mut(name)
        {
            entry.record.status = message.status.filter(|text| !text.is_empty());
            self.save(name);
        }
        if let Some(user) = message.refused {
            self.shared.console.error(&format!(
                "user {user} in service {name} asked for what only its root may ask for"
            ));
        }
        if let Some(by) = message.extend {
            self.apply(name, Event::Extend(by));
        }
        if message.ready {
            self.apply(name, Event::Ready);
        }
        if message.alive {
            self.apply(name, Event::Alive);
        }
        if let Some(hostname) = message.hostname {
            self.asked_for_hostname(name, hostname);
        }
        if let Some(power) = message.power {
            self.asked_for_power(name, &power);
        }
        if message.configure {
            self.asked_to_configure(name);
        }
        if message.healthy {
            self.said_healthy(name);
        }
    }

    fn asked_for_hostname(&self, name: &str, hostname: String) {
        let console = &self.shared.console;
        if !self.may(name, Request::Hostname) {
            console.error(&format!(
                "service {name} asked for a host name, which x-keelson.requests does not allow it"
            ));
        } else if !is_hostname(&hostname) {
            console.error(&format!(
                "service {name} asked for the host name `{hostname}`, which is none"
            ));
        } else {
            console.info(&format!("host name is {hostname}, by {name}"));
            self.shared.link.say(ToInit::Hostname { name: hostname });
        }
    }

    fn asked_for_power(&mut self, name: &str, word: &str) {
        let console = &self.shared.console;
        let Some(action) = Action::parse(word) else {
            return console.error(&format!(
                "service {name} asked for `{word}`: one of reboot, kexec, poweroff, halt"
            ));
        };
        let needed = match action {
            Action::Reboot | Action::Kexec => Request::Reboot,
            Action::Poweroff | Action::Halt => Request::Poweroff,
        };
        if !self.may(name, needed) {
            return console.error(&format!(
                "service {name} asked for {action}, which x-keelson.requests does not allow it"
            ));
        }
        console.info(&format!("{action}, by {name}"));
        if self.shared.link.is_connected() {
            self.shared.link.say(ToInit::Power { action });
        } else {
            self.begin_shutdown(SHUTDOWN_LIMIT);
        }
    }

    /// There is something new to configure the machine by.
    fn asked_to_configure(&mut self, name: &str) {
        let console = &self.shared.console;
        if !self.may(name, Request::Configure) {
            return console.error(&format!(
                "service {name} asked to configure the machine, which x-keelson.requests does not allow it"
            ));
        }
        let configures = |entry: &&Entry| entry.definition.reloads_config();
        let services = self.services.values().filter(configures);
        let services: Vec<String> = services
            .map(|entry| entry.definition.name.clone())
            .collect();
        for service in services {
            self.apply(&service, Event::Restart);
        }
    }

    /// A service has judged this boot.
    fn said_healthy(&self, name: &str) {
        if self.may(name, Request::Healthy) {
            self.shared.link.say(ToInit::Healthy);
        } else {
            self.shared.console.error(&format!(
                "service {name} says that this boot is good, which x-keelson.requests does not allow it"
            ));
        }
    }

    fn may(&self, name: &str, request: Request) -> bool {
        let entry = self.services.get(name);
        entry.is_some_and(|entry| {
            entry
                .definition
                .service
                .keelson
                .requests
                .0
                .contains(&request)
        })
    }
}
