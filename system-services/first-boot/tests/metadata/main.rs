//! `keelson-first-boot fetch` against services of the test's own, each in a network namespace of its own that has the address the
//! real one has. Needs root and unshare(1), as in `./mkimage.sh tools`; elsewhere the tests are skipped.

mod imported;
mod tls;
mod world;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use keelson_config::sources::Source;
use keelson_config::user_data::Missing;
use keelson_first_boot::stored;
use world::{Machine, PATIENCE, Service, is_inside};

const EC2: &[(&str, &str)] = &[
    ("/latest/api/token", "token-1"),
    ("/2021-03-23/meta-data/instance-id", "i-1"),
    ("/2021-03-23/meta-data/", "instance-id\nlocal-hostname"),
    ("/2021-03-23/meta-data/local-hostname", "ip-10-0-0-5"),
    (
        "/2021-03-23/user-data",
        "#include\nhttp://169.254.169.254/included\n",
    ),
    ("/included", "#cloud-config\nhostname: included\n"),
];

#[test]
fn what_ec2_says_is_kept_and_applied_and_what_it_includes_too() {
    if !is_inside(
        "what_ec2_says_is_kept_and_applied_and_what_it_includes_too",
        &["169.254.169.254/32"],
    ) {
        return;
    }
    let service = Service::start("169.254.169.254:80", EC2, None);
    let machine = Machine::new("quiet", &[("sys_vendor", "Amazon EC2")]);
    let said = machine.fetch();
    assert!(
        said.contains("instance `i-1`, from the metadata service http://169.254.169.254"),
        "{said}"
    );
    let kept = machine.kept().unwrap();
    assert_eq!(
        (kept.instance_id.as_str(), kept.hostname.as_deref()),
        ("i-1", Some("ip-10-0-0-5"))
    );
    let included = stored::included(&machine.config(), "http://169.254.169.254/included");
    assert_eq!(included.unwrap(), b"#cloud-config\nhostname: included\n");
    // Once for who it is, once for what that includes.
    assert_eq!(machine.configured(), 2);
    assert_eq!(service.was_asked("PUT /latest/api/token"), 1);
    // Nothing new, nothing to apply.
    machine.fetch();
    assert_eq!(machine.configured(), 0);
    // Something new in what is included, and then a service that has lost it.
    service.answer("/included", 200, "#cloud-config\nhostname: other\n");
    machine.fetch();
    assert_eq!(machine.configured(), 1);
    service.answer("/included", 404, "");
    let said = machine.fetch();
    assert!(
        said.contains("answers with status 404; what it was before is used"),
        "{said}"
    );
    assert_eq!(machine.configured(), 0);
    // Another instance includes something else under the same address.
    service.answer("/2021-03-23/meta-data/instance-id", 200, "i-2");
    machine.fetch();
    assert_eq!(machine.kept().unwrap().instance_id, "i-2");
    let included = stored::included(&machine.config(), "http://169.254.169.254/included");
    assert!(matches!(included, Err(Missing::Refused(why)) if why.ends_with("status 404")));
}

#[test]
fn a_service_that_comes_late_or_talks_nonsense_is_asked_until_it_makes_sense() {
    if !is_inside(
        "a_service_that_comes_late_or_talks_nonsense_is_asked_until_it_makes_sense",
        &[],
    ) {
        return;
    }
    let machine = Machine::new("", &[("sys_vendor", "Hetzner")]);
    let mut fetching = machine.start();
    // There is no way to the service yet. The address is heard of, long before the next try is due.
    std::thread::sleep(Duration::from_secs(4));
    assert!(fetching.is_going_on());
    let ip = |words: &str| {
        let status = Command::new("ip").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "ip {words}");
    };
    ip("address add 169.254.169.254/32 dev lo");
    // Nonsense first, and a connection that is cut.
    let nonsense = TcpListener::bind("169.254.169.254:80").unwrap();
    for answer in [
        &b"SSH-2.0-OpenSSH_9\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ninstance-id: i-9\n",
    ] {
        let (mut stream, _) = nonsense.accept().unwrap();
        stream.write_all(answer).unwrap();
        drop(stream);
    }
    drop(nonsense);
    let service = Service::start(
        "169.254.169.254:80",
        &[
            ("/hetzner/v1/metadata", "instance-id: 9\nhostname: node\n"),
            ("/hetzner/v1/userdata", ""),
        ],
        None,
    );
    let said = fetching.end();
    assert_eq!(machine.kept().unwrap().instance_id, "9");
    assert!(
        said.contains("Hetzner: nothing is known yet: http://169.254.169.254/hetzner/v1/metadata"),
        "{said}"
    );
    assert_eq!(
        (
            service.was_asked("GET /hetzner/v1/metadata"),
            machine.configured()
        ),
        (1, 1)
    );
}

#[test]
fn a_seed_at_an_address_of_the_command_line_is_read_and_so_is_its_cloud_config() {
    if !is_inside(
        "a_seed_at_an_address_of_the_command_line_is_read_and_so_is_its_cloud_config",
        &[],
    ) {
        return;
    }
    let service = Service::start(
        "127.0.0.1:8080",
        &[
            ("/seed/meta-data", "instance-id: i-1\n"),
            (
                "/seed/user-data",
                "#include-once\nhttp://127.0.0.1:8080/once\nftp://127.0.0.1/never\nhttp://127.0.0.1:8080/later\n",
            ),
            ("/once", "#!/bin/sh\n"),
            ("/layer", "#cloud-config\ntimezone: UTC\n"),
        ],
        None,
    );
    service.answer("/later", 503, "");
    let line = "ds=nocloud;s=http://127.0.0.1:8080/seed/;i=i-7 cloud-config-url=http://127.0.0.1:8080/layer";
    let machine = Machine::new(line, &[("sys_vendor", "Amazon EC2")]);
    let mut fetching = machine.start();
    // It goes on for what may still come.
    let deadline = Instant::now() + PATIENCE;
    while service.was_asked("GET /later") < 2 {
        assert!(Instant::now() < deadline && fetching.is_going_on());
        std::thread::sleep(Duration::from_millis(20));
    }
    service.answer("/later", 200, "#!/bin/sh\n");
    let said = fetching.end();
    assert!(
        said.contains("http://127.0.0.1:8080/later answers with status 503; it goes on trying"),
        "{said}"
    );
    assert_eq!(machine.kept().unwrap().instance_id, "i-7");
    let config = machine.config();
    let included = |path: &str| stored::included(&config, &format!("http://127.0.0.1:8080{path}"));
    assert_eq!(
        included("/layer").unwrap(),
        b"#cloud-config\ntimezone: UTC\n"
    );
    assert!(included("/once").is_ok() && included("/later").is_ok());
    let never = stored::included(&config, "ftp://127.0.0.1/never");
    assert!(
        matches!(never, Err(Missing::Refused(why)) if why.contains("is no address that begins with"))
    );
    assert_eq!(service.was_asked("GET /once"), 1);
    machine.fetch();
    assert_eq!(service.was_asked("GET /once"), 1);
}

#[test]
fn what_a_disk_includes_is_fetched_and_no_other_source_is_asked() {
    if !is_inside(
        "what_a_disk_includes_is_fetched_and_no_other_source_is_asked",
        &["169.254.169.254/32"],
    ) {
        return;
    }
    let service = Service::start("169.254.169.254:80", EC2, None);
    service.answer("/large", 200, &"x".repeat(2 * 1024 * 1024));
    let machine = Machine::new("quiet", &[("sys_vendor", "Amazon EC2")]);
    let user_data = b"#include\nhttp://169.254.169.254/included?secret=1\nhttp://169.254.169.254/large\nhttp://a b/\n";
    let disk = Source {
        platform: "nocloud".into(),
        instance_id: "disk".into(),
        user_data: Some(user_data.to_vec()),
        ..Source::default()
    };
    stored::keep(&machine.config(), &disk).unwrap();
    service.answer("/included?secret=1", 404, "");
    // One that ended in between has left word of it.
    stored::keep_news(&machine.config()).unwrap();
    let said = machine.start_with(&["--documents"]).end();
    assert!(!said.contains("secret"), "{said}");
    assert_eq!(machine.kept(), Some(disk));
    assert_eq!(service.was_asked("PUT"), 0);
    for url in [
        "http://169.254.169.254/included?secret=1",
        "http://169.254.169.254/large",
        "http://a b/",
    ] {
        let refused = stored::included(&machine.config(), url);
        assert!(
            matches!(refused, Err(Missing::Refused(_))),
            "{url}: {refused:?}"
        );
    }
    assert_eq!(machine.configured(), 2);
    assert!(!stored::has_news(&machine.config()).unwrap());
}

#[test]
fn the_only_data_source_that_is_allowed_is_asked_whatever_the_machine_is() {
    if !is_inside(
        "the_only_data_source_that_is_allowed_is_asked_whatever_the_machine_is",
        &["169.254.169.254/32"],
    ) {
        return;
    }
    let answers = [
        ("/hetzner/v1/metadata", "instance-id: 9\nhostname: node\n"),
        ("/seed/meta-data", "instance-id: i-1\n"),
    ];
    let service = Service::start("169.254.169.254:80", &answers, None);
    let machine = Machine::new("quiet", &[("sys_vendor", "Amazon EC2")]);
    machine.start_with(&["--datasources=hetzner,none"]).end();
    assert_eq!(machine.kept().unwrap().instance_id, "9");
    assert_eq!(service.was_asked("PUT /latest/api/token"), 0);
    // One that is not allowed any more, and nothing that is: there is nothing to ask for.
    let asked = service.was_asked("GET");
    machine.start_with(&["--datasources=configdrive"]).end();
    assert_eq!(service.was_asked("GET"), asked);
    let seed = "--seed-from=http://169.254.169.254/seed/";
    machine.start_with(&["--datasources=nocloud", seed]).end();
    assert_eq!(machine.kept().unwrap().instance_id, "i-1");
}

#[test]
fn what_the_command_line_names_counts_before_a_list_and_so_does_what_it_said() {
    if !is_inside(
        "what_the_command_line_names_counts_before_a_list_and_so_does_what_it_said",
        &["169.254.169.254/32"],
    ) {
        return;
    }
    let answers = [
        ("/hetzner/v1/metadata", "instance-id: 9\nhostname: node\n"),
        ("/seed/meta-data", "instance-id: i-1\n"),
    ];
    let _service = Service::start("169.254.169.254:80", &answers, None);
    for (line, id) in [
        ("ds=hetzner", "9"),
        ("ds=nocloud;s=http://169.254.169.254/seed/", "i-1"),
    ] {
        for list in ["--datasources=ec2", "--datasources="] {
            let machine = Machine::new(line, &[("sys_vendor", "Amazon EC2")]);
            machine.start_with(&[list]).end();
            assert_eq!(machine.kept().unwrap().instance_id, id, "{line} {list}");
            assert_eq!(machine.configured(), 1, "{line} {list}");
            // It is what was kept, and so nothing new.
            machine.start_with(&[list]).end();
            assert_eq!(machine.configured(), 0, "{line} {list}");
        }
    }
}

#[test]
fn scaleway_is_asked_from_a_port_below_1024() {
    if !is_inside(
        "scaleway_is_asked_from_a_port_below_1024",
        &["169.254.42.42/32"],
    ) {
        return;
    }
    let answers = [
        (
            "/conf?format=json",
            "{\"id\": \"u-1\", \"hostname\": \"scw\"}",
        ),
        ("/user_data/cloud-init", "#cloud-config\n"),
    ];
    let service = Service::start("169.254.42.42:80", &answers, None);
    let machine = Machine::new("scaleway", &[]);
    machine.fetch();
    assert_eq!(
        machine.kept().unwrap().user_data.as_deref(),
        Some(&b"#cloud-config\n"[..])
    );
    assert_eq!(service.was_asked("GET /conf?format=json high"), 1);
    assert_eq!(service.was_asked("GET /user_data/cloud-init low"), 1);
}

#[test]
fn azure_hears_that_the_machine_is_ready() {
    if !is_inside(
        "azure_hears_that_the_machine_is_ready",
        &["169.254.169.254/32", "168.63.129.16/32"],
    ) {
        return;
    }
    let instance = "/metadata/instance?api-version=2021-08-01&extended=true";
    let document = "{\"compute\": {\"vmId\": \"V-1\", \"name\": \"node\", \"userData\": \"I2Nsb3VkLWNvbmZpZwo=\"}}";
    let _imds = Service::start(
        "169.254.169.254:80",
        &[(instance, document)],
        Some(("Metadata", "true")),
    );
    let goal = "<GoalState><Incarnation>1</Incarnation><ContainerId>c-1</ContainerId><InstanceId>i-1</InstanceId></GoalState>";
    let wire = Service::start(
        "168.63.129.16:80",
        &[
            ("/machine/?comp=goalstate", goal),
            ("/machine?comp=health", ""),
        ],
        Some(("x-ms-version", "2012-11-30")),
    );
    let machine = Machine::new(
        "",
        &[("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77")],
    );
    machine.fetch();
    assert_eq!(machine.kept().unwrap().instance_id, "v-1");
    assert_eq!(wire.was_asked("POST /machine?comp=health"), 1);
}

#[test]
fn an_answer_without_end_is_an_error_and_what_was_kept_stays() {
    if !is_inside(
        "an_answer_without_end_is_an_error_and_what_was_kept_stays",
        &["169.254.169.254/32"],
    ) {
        return;
    }
    let good = "{\"droplet_id\": 7, \"hostname\": \"d\"}";
    let service = Service::start("169.254.169.254:80", &[("/metadata/v1.json", good)], None);
    let machine = Machine::new("", &[("sys_vendor", "DigitalOcean")]);
    machine.fetch();
    service.answer("/metadata/v1.json", 200, &"x".repeat(2 * 1024 * 1024));
    let mut fetching = machine.start();
    let deadline = Instant::now() + PATIENCE;
    while service.was_asked("GET /metadata/v1.json") < 3 {
        assert!(Instant::now() < deadline && fetching.is_going_on());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(machine.kept().unwrap().instance_id, "7");
    fetching.0.kill().unwrap();
    let said = fetching.words();
    assert!(
        said.contains("the answer is larger than 1048576 bytes"),
        "{said}"
    );
    assert_eq!(machine.configured(), 1);
    assert!(
        machine
            .root
            .path()
            .join("state/config/source/source.json")
            .exists()
    );
}
