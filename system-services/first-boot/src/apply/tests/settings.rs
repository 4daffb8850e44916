//! Settings that other services read.

use super::*;

#[test]
fn docker_keeps_what_others_set() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("config/docker")).unwrap();
    std::fs::write(
        machine.path("config/docker/daemon.json"),
        "{\"labels\": [\"a=b\"]}",
    )
    .unwrap();
    machine.boot(
        "i-1",
        "#cloud-config\nrancher: {docker: {bip: 172.20.0.1/16}}\n",
    );
    let text = machine.text("config/docker/daemon.json");
    assert!(
        text.contains("a=b") && text.contains("172.20.0.1/16"),
        "{text}"
    );
    machine.boot("i-1", "#cloud-config\n{}\n");
    let text = machine.text("config/docker/daemon.json");
    assert!(
        text.contains("a=b") && !text.contains("172.20.0.1/16"),
        "{text}"
    );
}

#[test]
fn the_console_is_told_which_host_keys_to_make_and_what_to_tell_of_them() {
    let machine = Machine::new();
    let text =
        "#cloud-config\nssh_genkeytypes: [rsa, ed25519]\nssh: {emit_keys_to_console: false}\n";
    assert_eq!(machine.boot("i-1", text).1, Vec::<String>::new());
    assert_eq!(machine.text("config/ssh/key-kinds"), "rsa ed25519\n");
    assert_eq!(machine.text("config/ssh/told-kinds"), "\n");
    assert_eq!(
        machine.text("config/ssh/sshd_config.d/50-cloud-config.conf"),
        "HostKey /state/config/ssh/ssh_host_rsa_key\n"
    );
    machine.boot("i-1", "#cloud-config\n{}\n");
    for file in [
        "key-kinds",
        "told-kinds",
        "sshd_config.d/50-cloud-config.conf",
    ] {
        assert!(!machine.path("config/ssh").join(file).exists(), "{file}");
    }
}

#[test]
fn host_keys_and_certificates_are_the_users() {
    let machine = Machine::new();
    let text = "#cloud-config\nssh_keys: {ed25519_private: SECRET, rsa_private: RSA}\nkeelson: {ssh: {port: 2222}}\nca_certs: {trusted: [\"-----BEGIN CERTIFICATE-----\\nA\\n-----END CERTIFICATE-----\"]}\n";
    assert_eq!(machine.boot("i-1", text).1, Vec::<String>::new());
    assert_eq!(machine.text("config/ssh/ssh_host_ed25519_key"), "SECRET\n");
    assert_eq!(
        machine.access("config/ssh/ssh_host_ed25519_key"),
        (0o600, 0, 0)
    );
    let settings = machine.text("config/ssh/sshd_config.d/50-cloud-config.conf");
    assert_eq!(
        settings,
        "Port 2222\nHostKey /state/config/ssh/ssh_host_rsa_key\n"
    );
    assert!(
        machine
            .text("config/ca-certificates/configuration.crt")
            .starts_with("-----BEGIN")
    );
    assert!(
        machine
            .text("config/files/etc/ssl/certs/ca-certificates.crt")
            .starts_with("everybody\n-----BEGIN")
    );
}
