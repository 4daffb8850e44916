use super::*;
use crate::CloudConfig;

fn services(text: &str) -> (Services, Vec<String>) {
    let mut diagnostics = Diagnostics::new("user-data");
    let config = CloudConfig::parse(text, &mut diagnostics).unwrap();
    let messages = diagnostics.into_sorted();
    let messages = messages.iter().map(ToString::to_string).collect();
    (config.services, messages)
}

#[test]
fn services_of_the_machine_become_a_compose_file() {
    let (services, messages) = services(
        "keelson:\n  environment: {TAG: 1.2}\n  services:\n    web:\n      image: registry/web:${TAG}\n      privileged: yes\n      volumes: [/a:/b]\n",
    );
    assert_eq!(messages, [] as [&str; 0]);
    assert_eq!(services.environment, [("TAG".to_owned(), "1.2".to_owned())]);
    assert_eq!(
        services.files[0].text,
        "# From the user-data, line 4; written anew with each of its instances.\nservices:\n  web:\n    image: \"registry/web:${TAG}\"\n    privileged: true\n    volumes:\n      - \"/a:/b\"\n"
    );
    assert_eq!(services.files[0].name, "user-data-keelson");
}

#[test]
fn rancheros_services_go_where_their_scope_says() {
    let (services, messages) = services(
        "rancher:\n  environment: {TOKEN: s3, OTHER: x}\n  upgrade: {url: x}\n  services:\n    agent:\n      image: corp/agent\n      net: host\n      volumes_from: [system-volumes]\n      labels: [io.rancher.os.scope=system, io.rancher.os.after=network]\n    nginx:\n      image: nginx:1\n      ports: ['80:80', \"443:443\"]\n      restart: always\n      environment: [TOKEN, A=b c, MISSING]\n      command: nginx -g 'daemon off;'\n      privileged: true\n      cpu_quota: 5\n    broken: {restart: always}\n",
    );
    assert_eq!(
        services.files[0].text,
        "# From the user-data, line 5; written anew with each of its instances.\nservices:\n  agent:\n    image: corp/agent\n    network_mode: host\n    labels:\n      - \"io.rancher.os.scope=system\"\n      - \"io.rancher.os.after=network\"\n"
    );
    let run = "docker run --detach --name nginx --publish=80:80 --publish=443:443 --restart=always --env=TOKEN=s3";
    let mut words: Vec<String> = run.split(' ').map(str::to_owned).collect();
    words.extend(
        [
            "--env=A=b c",
            "--privileged",
            "nginx:1",
            "nginx",
            "-g",
            "daemon off;",
        ]
        .map(str::to_owned),
    );
    assert_eq!(services.applications, [Command::Arguments(words)]);
    assert_eq!(
        messages,
        [
            "user-data:3:3: `upgrade` of `rancher` is not applied: the system is upgraded from a signed image, not from a list of addresses",
            "user-data:8:7: rancher.services.agent.volumes_from: left out: name the directories under `volumes`",
            "user-data:17:7: rancher.services.nginx.cpu_quota: left out: `docker run` has nothing like it",
            "user-data:18:13: rancher.services.broken: there is no `image`; it is not started",
        ]
    );
}

#[test]
fn what_is_wrong_costs_itself_alone() {
    let (services, messages) = services(
        "rancher:\n  environment: {1A: x, B: \"two\\nlines\", C: ok}\n  services:\n    a: [x]\n    b: {image: i, command: \"open 'quote\"}\n    web: {image: i}\nkeelson: 5\n",
    );
    assert_eq!(services.environment, [("C".to_owned(), "ok".to_owned())]);
    assert_eq!(services.applications.len(), 1);
    assert_eq!(messages.len(), 5, "{messages:#?}");
}
