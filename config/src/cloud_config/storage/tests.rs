use super::*;
use serde_json::json;

fn read(text: &str) -> (Plan, Vec<String>) {
    let mut diagnostics = Diagnostics::new("user-data");
    let root = yaml::parse(text).unwrap().root;
    let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
    let plan = parse(&top, &mut diagnostics);
    let messages = diagnostics.into_sorted();
    (plan, messages.iter().map(ToString::to_string).collect())
}

#[test]
fn mounts_are_fields_of_fstab() {
    let (plan, messages) = read(
        "mounts:\n- [vdb, /mnt/a]\n- [LABEL=data, /opt/d, ext4, 'defaults,nofail,noatime,x-systemd.requires=x', '0', '0']\n\
         - [/home/x, /srv/y, none, bind]\n- [vdc, none, swap, sw]\n- [tmpfs, /mnt/t, tmpfs, size=1m]\n- [vdb, /mnt/b]\n- [vdb, null]\n\
         rancher: {mounts: [[/dev/vdd, /mnt/s, ext4, '']]}\n",
    );
    assert_eq!(messages, [] as [&str; 0]);
    let shown: Vec<String> = plan
        .mounts
        .iter()
        .map(|mount| {
            let target = mount.target.as_deref().unwrap_or("-");
            let options = mount.options.join(",");
            format!(
                "{} {target} {} {options} {}",
                mount.source, mount.kind, mount.check
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "LABEL=data /opt/d ext4 noatime false",
            "/home/x /srv/y none bind true",
            "/dev/vdc - swap sw false",
            "tmpfs /mnt/t tmpfs size=1m true",
            "/dev/vdd /mnt/s ext4  true",
        ]
    );
}

#[test]
fn what_cannot_be_mounted_is_said() {
    let (plan, messages) = read(
        "mounts: [[vdb, /var/lib/docker], [vdb, data], ['srv:/x', /mnt/n, nfs], [/etc, /mnt/e, none, bind], {a: b}, [vdb, /mnt/../x]]\n\
         swap: {size: lots}\nfs_setup: [{device: vdb, filesystem: zfs}, {label: x}, {device: a, partition: first}]\n\
         disk_setup: {vdb: {table_type: bsd}, vdc: {layout: [60, 60]}, vdd: {layout: [x]}}\n",
    );
    assert_eq!(plan, Plan::default());
    assert_eq!(messages.len(), 13, "{messages:#?}");
}

#[test]
fn disks_and_file_systems_are_read() {
    let (plan, messages) = read(
        "device_aliases: {my_alias: /dev/nvme1n1}\n\
         disk_setup: {my_alias: {table_type: gpt, layout: [50, [50, 82]], overwrite: true}, /dev/vdb: {table_type: mbr, layout: true}}\n\
         fs_setup: [{device: my_alias.1, filesystem: ext4, label: a$b}, {device: vdb, filesystem: xfs, partition: auto, extra_opts: ['-K -f']}]\n\
         swap: {filename: /swap.img, size: auto, maxsize: 1.5G}\nmounts: [[my_alias.1, /mnt/a]]\n",
    );
    assert_eq!(messages, [] as [&str; 0]);
    assert_eq!(
        serde_json::to_value(&plan).unwrap(),
        json!({
            "disks": [
                {"device": "/dev/nvme1n1", "gpt": true, "overwrite": true,
                    "layout": {"partitions": [{"percent": 50, "kind": "linux"}, {"percent": 50, "kind": "swap"}]}},
                {"device": "/dev/vdb", "gpt": false, "overwrite": false, "layout": {"partitions": [{"percent": 100, "kind": "83"}]}},
            ],
            "filesystems": [
                {"device": "/dev/nvme1n1p1", "target": "whole", "kind": "ext4", "label": "a$b", "overwrite": false},
                {"device": "/dev/vdb", "target": "auto", "kind": "xfs", "overwrite": false, "options": ["-K", "-f"]},
            ],
            "swap": {"size": "auto", "max_bytes": 1_610_612_736u64},
            "mounts": [{"source": "/dev/nvme1n1p1", "target": "/mnt/a", "kind": "auto", "check": true}],
        })
    );
    let file = plan.service().unwrap();
    let service = yaml::to_json(&yaml::parse(&file.text).unwrap().root);
    let command = &service["services"]["storage"]["command"][1];
    let given: Plan = serde_json::from_str(&command.as_str().unwrap().replace("$$", "$")).unwrap();
    assert_eq!(given, plan);
    assert_eq!(Plan::default().service(), None);
}
