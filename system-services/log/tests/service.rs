//! What the log service promises, through its sockets.

mod harness;

use harness::{DEADLINE, Log, pipe};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

#[test]
fn a_services_lines_are_found_with_priority_stream_and_time() {
    let log = Log::start();
    let (reader, mut writer) = pipe();
    log.hand_over("network", &reader);
    writer
        .write_all(b"eth0 up\r\n<3>no lease\nbytes \xff\xfe\n")
        .unwrap();
    let follow = json!({"service": "network", "follow": true});
    let records: Vec<Value> = log.query(&follow).take(3).collect();
    let shape: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record["message"].as_str().unwrap(),
                record["priority"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            ("eth0 up", None),
            ("no lease", Some(3)),
            ("bytes \u{fffd}\u{fffd}", None)
        ]
    );
    for record in &records {
        assert_eq!(record["stream"], "stdout");
        assert!(record["time_us"].as_u64() > record["boot_us"].as_u64());
        assert_eq!(record.get("partial"), None);
    }
}

#[test]
fn tail_and_since_and_service_choose_records() {
    let log = Log::start();
    let (reader, mut writer) = pipe();
    let (other_reader, mut other) = pipe();
    log.hand_over("a", &reader);
    log.hand_over("b", &other_reader);
    for number in 0..50 {
        writeln!(writer, "a{number}").unwrap();
        writeln!(other, "b{number}").unwrap();
    }
    log.messages_until("a", "a49");
    log.messages_until("b", "b49");
    let messages = |request: Value| -> Vec<String> {
        log.query(&request)
            .map(|record| record["message"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(messages(json!({"service": "a", "tail": 2})), ["a48", "a49"]);
    assert_eq!(messages(json!({"service": "a", "tail": 0})), [""; 0]);
    assert_eq!(messages(json!({"service": "b"})).len(), 50);
    assert_eq!(messages(json!({"tail": 7})).len(), 7);
    let all: Vec<Value> = log.query(&json!({"service": "b"})).collect();
    let since = all[40]["time_us"].clone();
    let expected = all
        .iter()
        .filter(|record| record["time_us"].as_u64() >= since.as_u64())
        .count();
    assert_eq!(
        messages(json!({"service": "b", "since_us": since})).len(),
        expected
    );
}

#[test]
fn follow_gives_records_as_they_come() {
    let log = Log::start();
    let (reader, mut writer) = pipe();
    log.hand_over("time", &reader);
    let mut followed = log.query(&json!({"service": "time", "follow": true}));
    for number in 0..20 {
        writeln!(writer, "{number}").unwrap();
        let record = followed.next().unwrap();
        assert_eq!(record["message"], number.to_string());
    }
}

#[test]
fn syslog_messages_are_the_consoles() {
    let log = Log::start();
    let socket = UnixDatagram::unbound().unwrap();
    socket
        .send_to(
            b"<38>Nov 23 01:02:03 sshd[9]: Accepted publickey",
            log.path("dev-log"),
        )
        .unwrap();
    let record = log
        .query(&json!({"service": "console", "follow": true}))
        .next()
        .unwrap();
    assert_eq!(record["message"], "sshd[9]: Accepted publickey");
    assert_eq!(
        (record["stream"].as_str(), record["priority"].as_u64()),
        (Some("syslog"), Some(6))
    );
}

#[test]
fn unknown_keys_and_wrong_values_are_refused_by_name() {
    let log = Log::start();
    let error = |request: &Value| log.query(request).next().unwrap()["error"].to_string();
    assert!(error(&json!({"sevice": "a"})).contains("unknown field `sevice`"));
    assert!(error(&json!({"tail": -1})).contains("-1"));

    let (reader, _writer) = pipe();
    let file = std::fs::File::open("/dev/null").unwrap();
    let table = [
        (
            r#"{"name":"a"}"#,
            Some(reader.as_fd()),
            "missing field `stream`",
        ),
        (
            r#"{"name":"../a","stream":"stdout"}"#,
            Some(reader.as_fd()),
            "not a service's name",
        ),
        (
            r#"{"name":"a","stream":"stdin"}"#,
            Some(reader.as_fd()),
            "no such stream",
        ),
        (
            r#"{"name":"a","stream":"stdout"}"#,
            None,
            "no file descriptor",
        ),
        (
            r#"{"name":"a","stream":"stdout"}"#,
            Some(file.as_fd()),
            "is no pipe",
        ),
    ];
    for (packet, fd, expected) in table {
        let answer = log.offer(packet, fd)["error"].to_string();
        assert!(answer.contains(expected), "{packet}: {answer}");
    }
}

#[test]
fn a_pipe_whose_writers_are_gone_is_read_again_when_a_new_one_comes() {
    let log = Log::start();
    let (reader, writer) = pipe();
    log.hand_over("udev", &reader);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    let mut first = writer;
    first.write_all(b"one\nends here").unwrap();
    let mut next = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    drop(first);
    drop(std::mem::replace(
        &mut next,
        std::fs::OpenOptions::new()
            .write(true)
            .open(format!(
                "/proc/self/fd/{}",
                std::os::fd::AsRawFd::as_raw_fd(&reader)
            ))
            .unwrap(),
    ));
    next.write_all(b" and goes on\n").unwrap();
    drop(next);
    // No writer at all now: what has no end is stored.
    let mut last = std::fs::OpenOptions::new()
        .write(true)
        .open(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&reader)
        ))
        .unwrap();
    last.write_all(b"two\n").unwrap();
    let joined = log.messages_until("udev", "two").join("|");
    let expected = [
        "one|ends here and goes on|two",
        "one|ends here| and goes on|two",
    ];
    assert!(expected.contains(&joined.as_str()), "{joined}");
}

#[test]
fn an_unfinished_line_is_stored_when_its_pipe_is_replaced() {
    let log = Log::start();
    let (old_reader, mut old) = pipe();
    let (new_reader, mut new) = pipe();
    log.hand_over("time", &old_reader);
    old.write_all(b"done\nhalf a li").unwrap();
    log.messages_until("time", "done");
    log.hand_over("time", &new_reader);
    new.write_all(b"fresh\n").unwrap();
    let follow = json!({"service": "time", "follow": true});
    let records: Vec<Value> = log.query(&follow).take(3).collect();
    assert_eq!(records[1]["message"], "half a li");
    assert_eq!(records[1]["partial"], true);
    assert_eq!(records[2]["message"], "fresh");
}

#[test]
fn killed_at_any_moment_it_loses_no_line_and_doubles_none() {
    const LINES: usize = 20_000;
    const KILLS: usize = 15;
    let mut log = Log::start();
    let (reader, mut writer) = pipe();
    log.hand_over("busy", &reader);
    let writing = std::thread::spawn(move || {
        for number in 0..LINES {
            // In two parts, so that lines are torn as well.
            write!(writer, "line ").unwrap();
            writeln!(writer, "{number}").unwrap();
        }
        writer
    });
    for round in 0..KILLS {
        let seen = format!("line {}", (round + 1) * LINES / (KILLS + 2));
        log.messages_until("busy", &seen);
        log.signal(Signal::SIGKILL);
        log.restart();
        log.hand_over("busy", &reader);
    }
    let _writer = writing.join().unwrap();
    let messages = log.messages_until("busy", &format!("line {}", LINES - 1));
    let expected: Vec<String> = (0..LINES).map(|number| format!("line {number}")).collect();
    let wrong = messages
        .iter()
        .zip(&expected)
        .find(|(found, expected)| found != expected);
    assert_eq!(wrong, None);
    assert_eq!(messages.len(), expected.len());
}

#[test]
fn half_a_line_survives_a_kill_and_is_joined_with_its_end() {
    let mut log = Log::start();
    let (reader, mut writer) = pipe();
    log.hand_over("engine", &reader);
    writer.write_all(b"first\nhalf of").unwrap();
    log.messages_until("engine", "first");
    log.signal(Signal::SIGKILL);
    writer.write_all(b" a line\n").unwrap();
    log.restart();
    log.hand_over("engine", &reader);
    let messages = log.messages_until("engine", "half of a line");
    assert_eq!(messages, ["first", "half of a line"]);
}

#[test]
fn a_service_that_floods_the_log_pushes_out_only_itself() {
    let log = Log::start_with(&[("KEELSON_LOG_SIZE_MIB", "8")]);
    let (quiet_reader, mut quiet) = pipe();
    let (loud_reader, mut loud) = pipe();
    log.hand_over("quiet", &quiet_reader);
    log.hand_over("loud", &loud_reader);
    quiet.write_all(b"still here\n").unwrap();
    log.messages_until("quiet", "still here");
    let line = [vec![b'x'; 999], vec![b'\n']].concat();
    for _ in 0..20_000 {
        loud.write_all(&line).unwrap();
    }
    loud.write_all(b"end\n").unwrap();
    let end = log
        .query(&json!({"service": "loud", "tail": 1, "follow": true}))
        .find(|record| record["message"] == "end");
    assert!(end.is_some());
    let quiet_ones = log.query(&json!({"service": "quiet"})).count();
    assert_eq!(quiet_ones, 1);
    let kept = log.query(&json!({"service": "loud"})).count();
    assert!((1000..20_000).contains(&kept), "{kept} of the loud ones");
}

#[test]
fn a_stop_in_order_keeps_everything_that_was_written() {
    let mut log = Log::start();
    let (reader, mut writer) = pipe();
    log.hand_over("power", &reader);
    for number in 0..1000 {
        writeln!(writer, "{number}").unwrap();
    }
    log.signal(Signal::SIGTERM);
    log.restart();
    assert_eq!(log.query(&json!({"service": "power"})).count(), 1000);
}

#[test]
fn without_a_usable_disk_it_goes_on_in_memory_and_says_so() {
    let log = Log::start_with(&[("KEELSON_LOG_DIRECTORY", "/dev/null")]);
    let record = log.query(&json!({"service": "log"})).next().unwrap();
    let message = record["message"].as_str().unwrap();
    assert!(
        message.starts_with("cannot keep logs in /dev/null: "),
        "{message}"
    );
    assert!(message.contains("logging to memory"), "{message}");
    assert_eq!(record["priority"], 2);
    let (reader, mut writer) = pipe();
    log.hand_over("a", &reader);
    writer.write_all(b"works\n").unwrap();
    log.messages_until("a", "works");
}

#[test]
fn kernel_messages_are_stored_once_over_a_kill() {
    let mark = format!("mark-{}", std::process::id());
    // The kernel's own log: it takes what root writes there. A text without a line feed would not be readable before
    // the next one has come.
    let mut kmsg = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .expect("this test needs root");
    let mut say = |number: usize| {
        kmsg.write_all(format!("<14>keelson-{mark}: {number}\n").as_bytes())
            .unwrap();
    };
    let mut log = Log::start_with(&[("KEELSON_LOG_KMSG", "/dev/kmsg")]);
    say(0);
    log.messages_until(&mark, "0");
    log.signal(Signal::SIGKILL);
    say(1);
    log.restart();
    say(2);
    assert_eq!(log.messages_until(&mark, "2"), ["0", "1", "2"]);
    let record = log.query(&json!({"service": mark})).next().unwrap();
    assert_eq!(
        (record["stream"].as_str(), record["priority"].as_u64()),
        (Some("kernel"), Some(6))
    );
}

#[test]
fn a_message_that_is_too_long_for_one_datagram_buffer_blocks_nobody() {
    let log = Log::start();
    let socket = UnixDatagram::unbound().unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    let long = [b"<14>".to_vec(), vec![b'x'; 100_000]].concat();
    socket.send_to(&long, log.path("dev-log")).unwrap();
    let follow = json!({"service": "console", "follow": true});
    let records: Vec<Value> = log.query(&follow).take(7).collect();
    let total: usize = records
        .iter()
        .map(|record| record["message"].as_str().unwrap().len())
        .sum();
    assert_eq!(total, 100_000);
    assert!(records[..6].iter().all(|record| record["partial"] == true));
}

#[test]
fn what_was_flushed_reaches_a_follower_that_closes_its_side_and_what_is_forgotten_is_let_go() {
    let log = Log::start();
    let (reader, mut writer) = pipe();
    log.hand_over("0123abcd", &reader);
    let follow = json!({"service": "0123abcd", "follow": true});
    let (mut records, side) = log.follow(&follow);
    writer.write_all(b"first\n").unwrap();
    assert_eq!(records.next().unwrap()["message"], "first");
    writer.write_all(b"second\nno end").unwrap();
    assert_eq!(
        log.offer(r#"{"flush":"0123abcd"}"#, None),
        json!({"ok": true})
    );
    side.shutdown(std::net::Shutdown::Write).unwrap();
    let rest: Vec<Value> = records.map(|record| record["message"].clone()).collect();
    assert_eq!(rest, ["second", "no end"]);

    // Only the log's copy of the reading end is left, and goes.
    drop(reader);
    assert_eq!(
        log.offer(r#"{"forget":"0123abcd"}"#, None),
        json!({"ok": true})
    );
    let error = writer.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}
