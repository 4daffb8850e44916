//! What happens to containers, for those who want to hear of it: Docker's events.

use bollard_stubs::models::{
    EventActor, EventMessage, EventMessageScopeEnum, EventMessageTypeEnum,
};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::broadcast;

/// So many past events are remembered, for those who ask what was; and so far may a listener be behind.
const REMEMBERED: usize = 256;

/// Attributes of an event by name.
pub type Attributes = HashMap<String, String>;

/// What a listener gets: what was, and what will be.
pub type Subscription = (
    Vec<Arc<EventMessage>>,
    broadcast::Receiver<Arc<EventMessage>>,
);

/// The place where events are told.
#[derive(Debug)]
pub struct Events {
    past: RefCell<VecDeque<Arc<EventMessage>>>,
    sender: broadcast::Sender<Arc<EventMessage>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            past: RefCell::default(),
            sender: broadcast::Sender::new(REMEMBERED),
        }
    }
}

impl Events {
    /// Tells what happened to a container, a volume or an image.
    pub fn tell(&self, kind: EventMessageTypeEnum, action: &str, id: &str, attributes: Attributes) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default();
        let event = Arc::new(EventMessage {
            typ: Some(kind),
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some(id.to_owned()),
                attributes: Some(attributes),
            }),
            scope: Some(EventMessageScopeEnum::LOCAL),
            time: i64::try_from(since.as_secs()).ok(),
            time_nano: i64::try_from(since.as_nanos()).ok(),
        });
        let mut past = self.past.borrow_mut();
        if past.len() >= REMEMBERED {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listens: nobody is told.
        let _ = self.sender.send(event);
    }

    /// All that is remembered, and whatever comes.
    pub fn subscribe(&self) -> Subscription {
        (
            self.past.borrow().iter().cloned().collect(),
            self.sender.subscribe(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_hears_what_was_and_what_comes() {
        let events = Events::default();
        for number in 0..300 {
            let id = number.to_string();
            events.tell(
                EventMessageTypeEnum::CONTAINER,
                "start",
                &id,
                Attributes::new(),
            );
        }
        let (past, mut coming) = events.subscribe();
        assert_eq!(past.len(), 256);
        events.tell(
            EventMessageTypeEnum::CONTAINER,
            "die",
            "x",
            Attributes::new(),
        );
        assert_eq!(coming.try_recv().unwrap().action.as_deref(), Some("die"));
        assert!(coming.try_recv().is_err());
    }
}
