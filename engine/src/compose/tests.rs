use super::*;
use crate::compose::service::{Condition, SecurityOption, Ulimit};
use crate::compose::values::Restart;
use crate::compose::volume::Propagation;
use crate::compose::{NetworkMode, Ready};
use proptest::prelude::*;
use std::time::Duration;

fn one(body: &str) -> Definition {
    let text = format!(
        "services:\n  web:\n    image: keelson/web\n    command: [run]\n{}",
        indent(body)
    );
    parse(Path::new("web.yml"), &text, &Environment::default())
        .unwrap()
        .remove(0)
}

fn error(body: &str) -> Failure {
    let text = format!(
        "services:\n  web:\n    image: keelson/web\n    command: [run]\n{}",
        indent(body)
    );
    parse(Path::new("web.yml"), &text, &Environment::default()).unwrap_err()
}

fn indent(body: &str) -> String {
    body.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}

#[test]
fn every_key_is_understood() {
    let web = one(concat!(
        "entrypoint: /bin/sh -c 'exec \"$$0\" a\\ b'\n",
        "environment: {A: 1, B: yes, C: null, D: \"x=y\"}\n",
        "network_mode: host\npid: host\nipc: host\nuts: host\ncgroup: private\ncgroup_parent: user\n",
        "cap_add: [NET_ADMIN, cap_sys_time, CHOWN]\ncap_drop: [CHOWN]\n",
        "security_opt: [\"no-new-privileges:false\", seccomp=unconfined]\n",
        "devices: [\"/dev/null:/dev/zero:r\", {source: /dev/full}]\n",
        "device_cgroup_rules: [\"c 4:* rw\"]\n",
        "volumes:\n- /a:/b:ro,rslave\n- {type: bind, source: /c, target: /d/, read_only: true, bind: {create_host_path: false}}\n",
        "- {type: tmpfs, target: /e, tmpfs: {size: 1m, mode: 0700}}\n",
        "tmpfs: /run:size=1m,mode=700\nread_only: true\nuser: 0:5\ngroup_add: [tty, 7]\nworking_dir: /w\n",
        "restart: on-failure:3\nstop_signal: SIGINT\nstop_grace_period: 1m30s\nmem_limit: 64m\nmem_reservation: 1gb\n",
        "pids_limit: 10\ncpus: 0.5\ncpu_shares: 512\nulimits: {nofile: 1024, nproc: {soft: 1, hard: -1}, core: -1}\n",
        "depends_on: {db: {condition: service_healthy, required: false}}\n",
        "healthcheck: {test: [CMD, true], interval: 5s, retries: 2}\n",
        "hostname: h\nlabels: [a=b]\nsysctls: {net.core.somaxconn: 1}\noom_score_adj: -5\ninit: false\n",
        "x-keelson:\n  after: [udev]\n  ready: health\n  requests: [hostname, reboot]\n  start_timeout: 5m\n  watchdog: 10s\n",
        "  directories: [{path: /run/x, mode: \"0711\"}]\n",
    ));
    let service = &web.service;
    assert_eq!(
        web.arguments(),
        ["/bin/sh", "-c", "exec \"$0\" a\\ b", "run"]
    );
    let variables: Vec<_> = service
        .environment
        .0
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(variables, ["A=1", "B=yes", "D=x=y"]);
    assert_eq!(web.capabilities(), ["NET_ADMIN", "SYS_TIME"]);
    assert!(!web.no_new_privileges() && web.unconfined(SecurityOption::SeccompUnconfined));
    assert_eq!(service.volumes[0].propagation, Propagation::Rslave);
    assert!(
        service.volumes[0].read_only && service.volumes[0].create && !service.volumes[1].create
    );
    assert_eq!(service.volumes[1].target, "/d");
    assert_eq!(
        (
            service.volumes[2].size.unwrap().0,
            service.volumes[2].mode.unwrap().0
        ),
        (1 << 20, 0o700)
    );
    assert_eq!(service.tmpfs.0[0].options, ["size=1m", "mode=700"]);
    assert_eq!(service.restart, Restart::OnFailure(Some(3)));
    assert_eq!(service.stop_signal.unwrap().0, 2);
    assert_eq!(web.stop_grace_period(), Duration::from_secs(90));
    assert_eq!(
        (service.mem_limit.unwrap().0, service.cpus.unwrap().0),
        (64 << 20, 500)
    );
    assert_eq!(service.ulimits.0[1].1, Ulimit { soft: 1, hard: -1 });
    assert_eq!(service.depends_on.0[0].condition, Some(Condition::Healthy));
    assert_eq!(
        (web.ready(), web.start_timeout()),
        (Ready::Health, Some(Duration::from_secs(300)))
    );
    assert_eq!(service.network_mode, Some(NetworkMode::Host));
    assert_eq!(web.after(), ["udev"]);
}

#[test]
fn an_unknown_key_is_an_error_with_its_place() {
    let failure = error("read_onyl: true");
    assert!(
        failure.message.contains("unknown field `read_onyl`"),
        "{}",
        failure.message
    );
    assert_eq!(
        (failure.file.as_deref(), failure.line, failure.column),
        (Some("web.yml"), Some(5), Some(5))
    );
    let failure = error("x-keelson:\n  afther: [udev]");
    assert!(
        failure.message.contains("unknown field `afther`"),
        "{}",
        failure.message
    );
    assert_eq!(failure.line, Some(6));
    let failure = parse(
        Path::new("web.yml"),
        "servces:\n  a: {}\n",
        &Environment::default(),
    )
    .unwrap_err();
    assert_eq!((failure.source.as_str(), failure.line), ("web", Some(1)));
}

#[test]
fn networks_and_ports_say_which_network_a_service_has() {
    let read = |body: &str| {
        let text = format!("services:\n  web:\n    image: i\n    command: c\n    {body}\n");
        let all = parse(Path::new("web.yml"), &text, &Environment::default());
        all.map(|mut all| all.remove(0).service)
    };
    for (body, mode, networks) in [
        ("init: false", None, &[][..]),
        ("network_mode: bridge", Some("bridge"), &["bridge"]),
        ("ports: [80]", Some("bridge"), &["bridge"]),
        (
            "networks: [front, default]",
            Some("front"),
            &["front", "bridge"],
        ),
        (
            "networks: {front: {aliases: [w], ipv4_address: 10.1.2.3}}",
            Some("front"),
            &["front"],
        ),
    ] {
        let service = read(body).unwrap();
        let found = service.network_mode.as_ref().map(NetworkMode::as_text);
        assert_eq!(found.as_deref(), mode, "{body}");
        let names: Vec<&str> = service
            .networks
            .iter()
            .map(|one| one.network.as_str())
            .collect();
        assert_eq!(names, networks, "{body}");
    }
    for (body, says) in [
        ("network_mode: host\n    ports: [80]", "nothing to publish"),
        (
            "network_mode: host\n    networks: [front]",
            "exclude each other",
        ),
        (
            "network_mode: bridge\n    networks: [front]",
            "exclude each other",
        ),
        ("pid: host\n    x-keelson: {sockets: [80]}", "`pid: host`"),
    ] {
        let failure = read(body).unwrap_err();
        assert!(failure.message.contains(says), "{body}: {failure:?}");
        assert!(failure.line.is_some(), "{body}");
    }
    let file = "services:\n  a: {image: i, command: c}\nnetworks:\n  front:\n";
    let parsed = parse(Path::new("a.yml"), file, &Environment::default());
    let failure = parsed.unwrap_err();
    assert!(failure.message.contains("network create"), "{failure:?}");
    assert!(failure.line.is_some(), "{failure:?}");
    let file = file.replace("front:", "front: {external: true}");
    assert!(parse(Path::new("a.yml"), &file, &Environment::default()).is_ok());
}

#[test]
fn a_bad_value_is_an_error_with_its_place() {
    for (body, says) in [
        ("stop_grace_period: soon", "`soon` is not a duration"),
        ("mem_limit: 64q", "`64q` is not a size"),
        ("cap_add: [NET_ADMON]", "no capability `NET_ADMON`"),
        ("restart: sometimes", "not one of: no, always"),
        (
            "network_mode: lan",
            "`lan` is not one of: none, host, bridge, service:NAME",
        ),
        ("volumes: [data:/data]", "`data` is not an absolute path"),
        ("volumes: [/a:/../b]", "has `.` or `..` in it"),
        ("volumes: [/a:/b:rx]", "unknown option `rx`"),
        ("tmpfs: /run:bogus", "unknown option `bogus`"),
        ("device_cgroup_rules: [\"c 4 rw\"]", "not a device rule"),
        ("devices: [\"/dev/a:/dev/b:x\"]", "not device permissions"),
        ("security_opt: [seccomp=default]", "not one of"),
        ("environment: [A=1, A=2]", "`A` stands twice"),
        ("privileged: maybe", "expected a boolean"),
        (
            "ulimits: {nofile: {soft: 2, hard: 1}}",
            "soft limit is above",
        ),
        (
            "x-keelson: {on_change: [{path: etc, exec: [a]}]}",
            "`etc` is not an absolute path",
        ),
        (
            "x-keelson: {on_change: [{path: /etc, exec: []}]}",
            "`exec` names no program",
        ),
        (
            "x-keelson: {directories: [{path: /a, mode: 99}]}",
            "`99` is not a mode",
        ),
        ("init: true", "not supported"),
        ("x-keelson: {ready: health}", "needs a `healthcheck`"),
        ("oom_score_adj: 2000", "not between"),
        ("ulimits: {nofiles: 1}", "no limit `nofiles`"),
        ("ports: [\"80:http\"]", "`http` is not a port"),
        ("blkio_config: {weight: 10}", "unknown field `weight`"),
        (
            "blkio_config: {device_read_bps: [{path: /dev/vda, rate: 0}]}",
            "a rate is 1 or more",
        ),
        ("networks: [a, a]", "`a` stands twice"),
        ("env_file: nowhere.env", "nowhere.env does not exist"),
        ("x-keelson: {start: socket}", "needs `sockets`"),
        ("x-keelson: {sockets: [80, 80]}", "stream:80 stands twice"),
        ("env_file: [{path: \"\"}]", "name of a file is missing"),
    ] {
        let failure = error(body);
        assert!(
            failure.message.contains(says),
            "{body}: {}",
            failure.message
        );
        assert_eq!(failure.line, Some(5), "{body}: {failure:?}");
        assert!(
            !failure.message.contains(" at line "),
            "{}",
            failure.message
        );
    }
}

#[test]
fn a_service_that_stands_twice_or_runs_nothing_is_refused() {
    let twice = "services:\n  a: {image: i, command: c}\n  a: {image: i, command: c}\n";
    assert!(
        parse(Path::new("f.yml"), twice, &Environment::default())
            .unwrap_err()
            .message
            .contains("`a` stands twice")
    );
    let nothing = "services:\n  a:\n    image: keelson/i\n";
    let failure = parse(Path::new("f.yml"), nothing, &Environment::default()).unwrap_err();
    assert!(failure.message.contains("nothing to run"));
    assert_eq!((failure.line, failure.column), (Some(2), Some(3)));
    let name = "services:\n  ../a: {image: i, command: c}\n";
    assert!(
        parse(Path::new("f.yml"), name, &Environment::default())
            .unwrap_err()
            .message
            .contains("is not a service name")
    );
}

#[test]
fn a_directory_is_read_as_far_as_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("b.yml", "services:\n  b: {image: i, command: c}\n");
    write("a.yml", "services:\n  a: {image: i, command: c, oops: 1}\n");
    write(
        "c.yaml",
        "services:\n  b: {image: i, command: c}\n  c: {image: i, command: c}\n",
    );
    write("notes.txt", "not a service");
    write("noise.yml", "\u{1}\u{2}[[[");
    let loaded = load_all(directory.path(), Path::new("/nonexistent"));
    let names: Vec<_> = loaded
        .definitions
        .iter()
        .map(|definition| definition.name.as_str())
        .collect();
    assert_eq!(names, ["b", "c"]);
    let sources: Vec<_> = loaded
        .failures
        .iter()
        .map(|failure| failure.source.as_str())
        .collect();
    assert_eq!(sources, ["a", "b", "noise"]);
    assert_eq!(
        load_all(Path::new("/nonexistent"), Path::new("/nonexistent"))
            .failures
            .len(),
        1
    );
}

#[test]
fn labels_of_rancheros_are_understood() {
    let web =
        one("labels:\n  io.rancher.os.after: network, udev\n  io.rancher.os.detach: \"false\"");
    assert_eq!(web.after(), ["network", "udev"]);
    assert_eq!(web.ready(), Ready::Exit);
}

#[test]
fn the_definitions_of_the_system_services_are_valid() {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../system-services");
    for entry in std::fs::read_dir(services).unwrap() {
        let file = entry.unwrap().path().join("service.yml");
        if let Ok(text) = std::fs::read_to_string(&file) {
            parse(&file, &text, &Environment::default()).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        let _ = parse(Path::new("f.yml"), &text, &Environment::default());
    }

    #[test]
    fn no_value_makes_the_reader_panic(key in "[a-z_]{1,12}", value in "[ -~]{0,20}") {
        let text = format!("services:\n  a:\n    image: i\n    command: c\n    {key}: {value}\n");
        let _ = parse(Path::new("f.yml"), &text, &Environment::default());
    }

    #[test]
    fn durations_are_sums_of_their_parts(h in 0_u64..100, m in 0_u64..60, s in 0_u64..60, ms in 0_u64..1000) {
        let span: crate::compose::values::Span = format!("{h}h{m}m{s}s{ms}ms").parse().unwrap();
        prop_assert_eq!(span.0, Duration::from_millis(((h * 60 + m) * 60 + s) * 1000 + ms));
    }

    #[test]
    fn sizes_are_binary(number in 0_u64..1 << 20) {
        for (unit, shift) in [("", 0), ("b", 0), ("k", 10), ("KB", 10), ("m", 20), ("g", 30)] {
            let size: crate::compose::values::ByteSize = format!("{number}{unit}").parse().unwrap();
            prop_assert_eq!(size.0, number << shift);
        }
    }

    #[test]
    fn a_quoted_line_splits_into_its_words(words in prop::collection::vec("[ -&(-~]{1,8}", 0..5)) {
        let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        prop_assert_eq!(crate::compose::lists::split_words(&line).unwrap(), words);
    }
}

#[test]
fn variables_stand_in_values_of_every_kind_and_not_in_keys() {
    let environment = Environment::parse("TAG=1.2\nPIDS=12\nYES=true\nDIR=/srv\n").unwrap();
    let text = "services:\n  web:\n    image: registry/web:${TAG}\n    command: [run, \"$$HOME\", \"${NO:-x}\"]\n    pids_limit: ${PIDS}\n    read_only: ${YES}\n    environment: {A$B: \"$DIR\"}\n    volumes: [\"${DIR}:/data\"]\n    mem_limit: ${PIDS}m\n    healthcheck: {test: [CMD, x], retries: $PIDS}\n";
    let web = parse(Path::new("web.yml"), text, &environment)
        .unwrap()
        .remove(0)
        .service;
    assert_eq!(web.image, "registry/web:1.2");
    assert_eq!(web.command.0, ["run", "$HOME", "x"]);
    assert_eq!((web.pids_limit, web.read_only), (Some(12), true));
    assert_eq!(web.environment.0["A$B"], "/srv");
    assert_eq!(web.volumes[0].source, "/srv");
    assert_eq!(web.mem_limit.map(|size| size.0), Some(12 << 20));
    assert_eq!(web.healthcheck.and_then(|check| check.retries), Some(12));

    let wrong = "services:\n  web:\n    image: i\n    command: c\n    user: ${WHO:?set WHO}\n";
    let failure = parse(Path::new("web.yml"), wrong, &environment).unwrap_err();
    assert!(
        failure.message.contains("WHO is not set: set WHO"),
        "{failure:?}"
    );
    assert_eq!(failure.line, Some(5));
}

#[test]
fn names_are_added_in_each_of_their_forms() {
    let list = one(
        "extra_hosts: [\"db=192.0.2.1\", \"six:[2001:db8::1]\"]\ndns: 192.0.2.53\ndns_search: [a.example, b.example]\ndns_opt: [ndots:2]\n",
    );
    let names = list.service.names;
    let hosts = [("db", "192.0.2.1"), ("six", "2001:db8::1")];
    assert_eq!(names.hosts, hosts.map(|(a, b)| (a.into(), b.into())));
    assert_eq!(names.servers, ["192.0.2.53"]);
    assert_eq!(names.search, ["a.example", "b.example"]);
    assert_eq!(names.options, ["ndots:2"]);
    let map = one("extra_hosts: {db: 192.0.2.1, six: [\"2001:db8::1\"]}\n");
    assert_eq!(map.service.names.hosts, names.hosts);
    for (wrong, message) in [
        ("extra_hosts: [db]", "`db` is not HOST=ADDRESS"),
        ("extra_hosts: {db: here}", "`here` is not an address"),
        ("dns: [one]", "`one` is not the address of a name server"),
    ] {
        let failure = error(wrong);
        assert!(failure.message.contains(message), "{failure:?}");
        assert_eq!(failure.line, Some(5));
    }
}

#[test]
fn the_machines_own_services_come_after_those_of_the_image() {
    let (image, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write = |directory: &tempfile::TempDir, name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).unwrap();
    };
    write(
        &image,
        "a.yml",
        "services:\n  a: {image: keelson/a, command: c}\n",
    );
    write(&own, "a.yml", "services:\n  a: {image: i}\n");
    write(&own, "b.yml", "services:\n  b: {image: \"i:$TAG\"}\n");
    write(&own, ".env", "OTHER=1\n");
    let loaded = load_all(image.path(), own.path());
    let names: Vec<_> = loaded
        .definitions
        .iter()
        .map(|definition| (definition.name.as_str(), definition.own))
        .collect();
    assert_eq!(names, [("a", false), ("b", true)]);
    assert!(loaded.failures[0].message.contains("already defined"));
    assert!(loaded.warnings[0].contains("TAG"), "{:?}", loaded.warnings);

    write(&own, ".env", "TAG\n");
    let loaded = load_all(image.path(), own.path());
    assert_eq!(loaded.failures[0].line, Some(1));
    assert_eq!(loaded.definitions.len(), 2);
}
