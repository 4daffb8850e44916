use super::*;
use crate::compose::service::Ulimit;
use crate::compose::values::{ByteSize, Cpus, Restart, SwapLimit};
use serde_json::{Value, json};
use std::path::Path;

fn body(mut value: Value) -> ContainerCreateBody {
    if value["Image"].is_null() {
        value["Image"] = "keelson/console".into();
    }
    serde_json::from_value(value).unwrap()
}

fn made(value: Value) -> Result<Service, String> {
    service(&body(value), "0123456789ab", Path::new("/volumes"))
}

#[test]
fn the_image_fills_in_what_is_not_said() {
    let image: ImageConfig = serde_json::from_value(json!({
        "Env": ["PATH=/bin", "A=image"], "Cmd": ["serve"], "Entrypoint": ["/init"], "User": "web",
        "WorkingDir": "/srv", "Labels": {"a": "1", "b": "1"}, "Volumes": {"/data": {}},
    }))
    .unwrap();
    let mut asked = body(json!({ "Env": ["A=own"], "Labels": {"b": "2"} }));
    merge(&mut asked, &image);
    assert_eq!(asked.env.unwrap(), ["PATH=/bin", "A=own"]);
    assert_eq!(
        (asked.cmd.unwrap(), asked.entrypoint.unwrap()),
        (vec!["serve".to_owned()], vec!["/init".to_owned()])
    );
    assert_eq!(
        (asked.user.unwrap(), asked.working_dir.unwrap()),
        ("web".to_owned(), "/srv".to_owned())
    );
    assert_eq!(asked.labels.unwrap()["b"], "2");
    assert_eq!(asked.volumes.unwrap(), ["/data"]);

    let mut asked = body(json!({ "Entrypoint": ["/other"] }));
    merge(&mut asked, &image);
    assert_eq!((asked.cmd, asked.entrypoint.unwrap().len()), (None, 1));
    let mut asked = body(json!({ "Entrypoint": [""], "Cmd": ["x"] }));
    merge(&mut asked, &image);
    assert_eq!(
        (asked.cmd.unwrap(), asked.entrypoint),
        (vec!["x".to_owned()], None)
    );
}

#[test]
fn capabilities_are_dockers_list_less_what_is_dropped_and_what_is_added() {
    let kept = |host: Value| {
        let service = made(json!({ "Cmd": ["x"], "HostConfig": host })).unwrap();
        let mut names: Vec<String> = service.cap_add.into_iter().map(|one| one.0).collect();
        names.sort();
        names
    };
    assert_eq!(kept(json!({})).len(), 14);
    assert_eq!(
        kept(json!({ "CapDrop": ["ALL"], "CapAdd": ["CAP_NET_ADMIN"] })),
        ["NET_ADMIN"]
    );
    assert!(!kept(json!({ "CapDrop": ["net_raw"] })).contains(&"NET_RAW".to_owned()));
    assert_eq!(
        kept(json!({ "CapAdd": ["ALL"], "CapDrop": ["SYS_ADMIN"] })).len(),
        40
    );
}

#[test]
fn limits_come_in_dockers_units() {
    let service = made(json!({ "Cmd": ["x"], "StopTimeout": -1, "HostConfig": {
        "Memory": 1048576, "MemorySwap": -1, "NanoCpus": 500000000, "PidsLimit": 0, "CpusetCpus": "0",
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "ShmSize": 0,
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
    }}))
    .unwrap();
    assert_eq!(service.mem_limit, Some(ByteSize(1 << 20)));
    assert_eq!(service.memswap_limit, Some(SwapLimit(-1)));
    assert_eq!(
        (service.cpus, service.pids_limit, service.shm_size),
        (Some(Cpus(500)), None, None)
    );
    assert_eq!(service.restart, Restart::OnFailure(Some(3)));
    assert_eq!(
        service.ulimits.0,
        [("nofile".to_owned(), Ulimit { soft: 10, hard: 20 })]
    );
    assert!(service.stop_grace_period.unwrap().0 > Duration::from_secs(1_000_000));
    let quota =
        made(json!({ "Cmd": ["x"], "HostConfig": {"CpuQuota": 25000, "CpuPeriod": 50000} }));
    assert_eq!(quota.unwrap().cpus, Some(Cpus(500)));
}

#[test]
fn what_cannot_be_done_is_said() {
    let error = |value: Value| made(value).unwrap_err();
    assert_eq!(error(json!({})), "no command specified");
    for (host, words) in [
        (json!({ "Init": true }), "HostConfig.Init"),
        (json!({ "PidMode": "container:x" }), "invalid PidMode"),
        (json!({ "CapAdd": ["FLY"] }), "no capability `FLY`"),
        (json!({ "Binds": ["/a:b"] }), "not an absolute path"),
        (
            json!({ "AutoRemove": true, "RestartPolicy": {"Name": "always"} }),
            "AutoRemove",
        ),
        (
            json!({ "RestartPolicy": {"Name": "always", "MaximumRetryCount": 2} }),
            "maximum retry count",
        ),
        (json!({ "OomScoreAdj": 2000 }), "Invalid value 2000"),
        (
            json!({ "Ulimits": [{"Name": "files"}] }),
            "invalid ulimit type: files",
        ),
    ] {
        let said = error(json!({ "Cmd": ["x"], "HostConfig": host }));
        assert!(said.contains(words), "{said}");
    }
    assert!(error(json!({ "Cmd": ["x"], "WorkingDir": "srv" })).contains("absolute path"));
}

#[test]
fn a_variable_without_a_value_takes_one_away() {
    let service = made(json!({ "Cmd": ["x"], "Env": ["A=1", "B=2", "A", "B=3="] })).unwrap();
    assert_eq!(
        service.environment.0,
        BTreeMap::from([("B".to_owned(), "3=".to_owned())])
    );
}

#[test]
fn a_health_check_counts_in_nanoseconds() {
    let service = made(json!({ "Cmd": ["x"], "Healthcheck": {"Test": ["CMD", "true"], "Interval": 2000000000, "Retries": 0} })).unwrap();
    let check = service.healthcheck.unwrap();
    assert_eq!(
        (check.interval, check.retries),
        (Some(Span(Duration::from_secs(2))), None)
    );
    let none = made(json!({ "Cmd": ["x"], "Healthcheck": {"Test": []} })).unwrap();
    assert!(none.healthcheck.is_none());
}
