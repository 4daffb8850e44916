//! The vocabulary: each message has the documented form, and comes back as it was sent.

use super::*;
use proptest::prelude::*;

#[test]
fn messages_to_the_engine_have_the_documented_form() {
    let deadline = Duration::from_secs(12);
    for (message, text) in [
        (
            ToEngine::Stored {
                name: "a\"b".into(),
            },
            r#"{"type":"stored","name":"a\"b"}"#,
        ),
        (
            ToEngine::Exited {
                seq: 7,
                pid: 42,
                ending: Ending::Code(3),
            },
            r#"{"type":"exited","seq":7,"pid":42,"code":3}"#,
        ),
        (
            ToEngine::Exited {
                seq: 8,
                pid: 43,
                ending: Ending::Signal(9),
            },
            r#"{"type":"exited","seq":8,"pid":43,"signal":9}"#,
        ),
        (ToEngine::HelloEnd, r#"{"type":"hello-end"}"#),
        (
            ToEngine::Shutdown {
                action: Action::Reboot,
                deadline,
            },
            r#"{"type":"shutdown","action":"reboot","deadline_ms":12000}"#,
        ),
    ] {
        assert_eq!(String::from_utf8(message.encode()).unwrap(), text);
        assert_eq!(ToEngine::decode(text.as_bytes()).unwrap(), message);
    }
}

#[test]
fn messages_to_init_have_the_documented_form() {
    for (message, text) in [
        (
            ToInit::Store { name: "n".into() },
            r#"{"type":"store","name":"n"}"#,
        ),
        (
            ToInit::Drop { name: "n".into() },
            r#"{"type":"drop","name":"n"}"#,
        ),
        (ToInit::Ack { seq: 1 }, r#"{"type":"ack","seq":1}"#),
        (
            ToInit::Power {
                action: Action::Halt,
            },
            r#"{"type":"power","action":"halt"}"#,
        ),
        (
            ToInit::Hostname {
                name: "boat".into(),
            },
            r#"{"type":"hostname","name":"boat"}"#,
        ),
        (ToInit::Ready, r#"{"type":"ready"}"#),
        (ToInit::UserSettled, r#"{"type":"user-settled"}"#),
        (ToInit::Healthy, r#"{"type":"healthy"}"#),
        (ToInit::Stopped, r#"{"type":"stopped"}"#),
    ] {
        assert_eq!(String::from_utf8(message.encode()).unwrap(), text);
        assert_eq!(ToInit::decode(text.as_bytes()).unwrap(), message);
    }
}

#[test]
fn a_bad_message_is_refused_with_its_reason() {
    for (text, why) in [
        (r#"{"name":"x"}"#, Malformed::Missing("type")),
        (r#"{"type":"dance"}"#, Malformed::Type("dance".into())),
        (r#"{"type":"store"}"#, Malformed::Missing("name")),
        (r#"{"type":"store","name":1}"#, Malformed::Kind("name")),
        (r#"{"type":"ack","seq":-1}"#, Malformed::Range("seq")),
        (r#"{"type":"ack","seq":"1"}"#, Malformed::Kind("seq")),
        (
            r#"{"type":"power","action":"fly"}"#,
            Malformed::Range("action"),
        ),
        (
            r#"{"type":"ready","extra":1}"#,
            Malformed::Unknown("extra".into()),
        ),
        (
            r#"{"type":"ready","type":"ready"}"#,
            Malformed::Duplicate("type".into()),
        ),
        ("ready", Malformed::Syntax),
    ] {
        assert_eq!(ToInit::decode(text.as_bytes()), Err(why), "{text}");
    }
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Reboot),
        Just(Action::Kexec),
        Just(Action::Poweroff),
        Just(Action::Halt)
    ]
}

proptest! {
    #[test]
    fn messages_to_the_engine_come_back(
        name in any::<String>(), seq in 0..i64::MAX as u64, pid in any::<i32>(), number in any::<i32>(),
        action in action(), milliseconds in 0..i64::MAX as u64,
    ) {
        for message in [
            ToEngine::Stored { name },
            ToEngine::Exited { seq, pid, ending: Ending::Code(number) },
            ToEngine::Exited { seq, pid, ending: Ending::Signal(number) },
            ToEngine::HelloEnd,
            ToEngine::Shutdown { action, deadline: Duration::from_millis(milliseconds) },
        ] {
            prop_assert_eq!(ToEngine::decode(&message.encode()).unwrap(), message);
        }
    }

    #[test]
    fn messages_to_init_come_back(name in any::<String>(), seq in 0..i64::MAX as u64, action in action()) {
        for message in [
            ToInit::Store { name: name.clone() },
            ToInit::Drop { name: name.clone() },
            ToInit::Hostname { name },
            ToInit::Ack { seq },
            ToInit::Power { action },
            ToInit::Ready,
            ToInit::UserSettled,
            ToInit::Healthy,
            ToInit::Stopped,
        ] {
            prop_assert_eq!(ToInit::decode(&message.encode()).unwrap(), message);
        }
    }

    #[test]
    fn no_packet_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (ToEngine::decode(&bytes), ToInit::decode(&bytes));
    }
}
