//! Sockets that are listened at for services.

use crate::world::World;
use keelson_engine::api::State;
use std::fs;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

/// Takes one message, says what it was told about its sockets, and ends.
fn service(directory: &Path, more: &str) -> String {
    format!(
        "services:
  echo:
    image: keelson/box
    command: [sh, -c, 'echo told $$LISTEN_FDS $$LISTEN_PID $$$$ $$LISTEN_FDNAMES; busybox dd bs=64 count=1 <&3 2>/dev/null; echo .']
    {more}
    x-keelson:
      start: socket
      sockets:
      - {{listen: {0}/echo.sock, type: dgram, name: messages, mode: 0600}}
      - {0}/other.sock
  needs: {{image: keelson/box, command: ['true'], depends_on: [echo], x-keelson: {{ready: exit}}}}
",
        directory.display()
    )
}

fn send(path: &Path, text: &str) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(text.as_bytes(), path).unwrap();
}

fn wait_for_state(world: &World, state: State) {
    world.wait("its state", || {
        (world.service("echo").state == state).then_some(())
    });
}

#[test]
fn a_service_is_started_by_who_connects_and_loses_nothing_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.sock");
    let Some(mut world) = World::start(&[("echo", &service(directory.path(), ""))], true) else {
        return;
    };
    world.is_up();
    // Those who need it need not have it run.
    world.wait("the one that needs it", || {
        (world.service("needs").state == State::Finished).then_some(())
    });
    assert_eq!(world.service("echo").state, State::Listening);
    assert_eq!(world.service("echo").started_us, None);
    send(&path, "first");
    world.wait_for("service echo is started: somebody has called");
    world.wait_for("service echo has finished");
    wait_for_state(&world, State::Listening);

    // The engine is away: what is sent waits for the next one.
    let before = world.service("echo").started_us;
    world.kill_engine();
    send(&path, "second");
    world.start_engine();
    world.wait("it to be started by what was sent meanwhile", || {
        let echo = world.service("echo");
        (echo.started_us != before && echo.state == State::Listening).then_some(())
    });

    // Nobody is to reach it any more, until it is wanted again.
    let (status, body) = world.request("POST", "/keelson/v1/services/echo/stop");
    assert_eq!(status, 204, "{body}");
    assert!(!path.exists());
    assert!(UnixStream::connect(directory.path().join("other.sock")).is_err());
    let (status, body) = world.request("POST", "/keelson/v1/services/echo/up");
    assert_eq!(status, 204, "{body}");
    assert_eq!(world.service("echo").state, State::Listening);
    let ran = world.service("echo").started_us;
    // A connection counts as well as a message; it is kept until there is a message.
    let _waiting = UnixStream::connect(directory.path().join("other.sock")).unwrap();
    world.wait("it to run", || {
        (world.service("echo").started_us != ran).then_some(())
    });
    send(&path, "third");
    world.wait_for("service echo has finished");
}

#[test]
fn the_program_is_told_of_its_sockets_as_systemd_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.sock");
    let Some(world) = World::start(&[("echo", &service(directory.path(), ""))], false) else {
        return;
    };
    wait_for_state(&world, State::Listening);
    let mode = fs::metadata(&path).unwrap().permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    send(&path, "something");
    let told = world.wait_for("echo | told ");
    assert_eq!(told.last().unwrap(), "echo | told 2 1 1 messages:echo");
    world.wait_for("echo | something.");
}

#[test]
fn a_socket_that_cannot_be_had_is_told_and_the_rest_runs() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("echo.sock"), "a file").unwrap();
    let Some(world) = World::start(&[("echo", &service(directory.path(), ""))], false) else {
        return;
    };
    world.wait_for("service echo: cannot listen at");
    assert_eq!(world.service("echo").state, State::Failed);
    let text = fs::read_to_string(directory.path().join("echo.sock")).unwrap();
    assert_eq!(text, "a file");
}

#[test]
fn one_socket_that_cannot_be_had_does_not_cost_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    fs::write(&path, "in the way").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap();
    drop(listener);
    let file = format!(
        "services:\n  web: {{image: keelson/box, command: [sleep, '1000'], restart: always, stop_signal: KILL, x-keelson: {{sockets: ['{port}', {}]}}}}\n",
        path.display()
    );
    let Some(world) = World::start(&[("web", &file)], true) else {
        return;
    };
    world.wait_for("cannot listen at");
    let _connected = std::net::TcpStream::connect(port).unwrap();
    fs::remove_file(&path).unwrap();
    world.wait_for("service web is ready");
    UnixStream::connect(&path).unwrap();
}

#[test]
fn who_connects_before_a_service_runs_is_answered_when_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("late.sock");
    let gate = directory.path().join("gate");
    let file = format!(
        "services:
  gate: {{image: keelson/box, command: [sh, -c, 'until test -e /gate/open; do sleep 0.05; done'], volumes: ['{0}:/gate'], x-keelson: {{ready: exit}}}}
  late: {{image: keelson/box, command: [sh, -c, 'busybox dd bs=64 count=1 <&3'], depends_on: [gate], x-keelson: {{sockets: [{{listen: {0}/late.sock, type: dgram}}]}}}}
",
        directory.path().display()
    );
    let Some(world) = World::start(&[("late", &file)], false) else {
        return;
    };
    world.wait("the socket", || path.exists().then_some(()));
    assert_eq!(world.service("late").state, State::Waiting);
    send(&path, "early\n");
    fs::write(gate.with_file_name("open"), "").unwrap();
    world.wait_for("late | early");
}

#[test]
fn variables_come_from_files_and_what_is_said_beside_them_counts_more() {
    let Some(world) = World::new(&[], false) else {
        return;
    };
    let own = world.own_services();
    fs::write(own.join("web.env"), "# ours\nA=file\nB=\"two words\"\n").unwrap();
    fs::write(
        own.join("web.yml"),
        "services:\n  web: {image: keelson/box, command: [sh, -c, 'echo $$A $$B'], environment: [A=own], env_file: [web.env, {path: none.env, required: false}]}\n",
    )
    .unwrap();
    fs::write(
        own.join("other.yml"),
        "services:\n  other: {image: keelson/box, command: ['true'], env_file: gone.env}\n",
    )
    .unwrap();
    let mut world = world;
    world.start_engine();
    let lines = world.wait_for("web | own two words");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("gone.env does not exist")),
        "{lines:#?}"
    );
}
