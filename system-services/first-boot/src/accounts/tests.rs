//! Accounts as tools would leave them.

use keelson_config::cloud_config::{Group, User};
use proptest::prelude::*;

use super::*;

const TODAY: Day = Day(20_000);

fn base() -> Accounts {
    Accounts::read(|name| {
        Ok::<_, ()>(Some(
            match name {
                "passwd" => "root:x:0:0:root:/root:/bin/bash\nkeelson:x:1000:1000::/home/keelson:/bin/bash\n",
                "shadow" => "root:*:20000:0:99999:7:::\nkeelson:*:20000:0:99999:7:::\n",
                "group" => "root:x:0:\nsudo:x:27:keelson\nshadow:x:42:\nusers:x:100:\nkeelson:x:1000:\n",
                _ => "root:*::\nsudo:!::keelson\nshadow:!::\nusers:!::\nkeelson:!::\n",
            }
            .to_owned(),
        ))
    })
    .unwrap()
}

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        ..User::default()
    }
}

fn text(accounts: &Accounts, name: &str) -> String {
    accounts
        .files()
        .into_iter()
        .find(|file| file.name == name)
        .unwrap()
        .text
}

#[test]
fn a_new_user_gets_a_number_a_group_a_home_and_no_password() {
    let mut accounts = base();
    let mut ann = user("ann");
    ann.gecos = Some("Ann".into());
    ann.groups = Some(vec!["sudo".into(), "ops".into()]);
    accounts.apply_user(&ann, TODAY).unwrap();
    assert!(text(&accounts, "passwd").ends_with("ann:x:1001:1001:Ann:/home/ann:/bin/bash\n"));
    assert!(text(&accounts, "shadow").ends_with("ann:!:20000:0:99999:7:::\n"));
    assert!(text(&accounts, "group").contains("sudo:x:27:keelson,ann\n"));
    assert!(text(&accounts, "group").ends_with("ann:x:1001:\nops:x:1002:ann\n"));
    assert!(text(&accounts, "gshadow").contains("sudo:!::keelson,ann\n"));
    let before = accounts.clone();
    accounts.apply_user(&ann, TODAY).unwrap();
    assert_eq!(accounts, before, "applying it again changes nothing");
}

#[test]
fn groups_and_numbers_are_as_asked_for() {
    let mut accounts = base();
    let mut ann = user("ann");
    (ann.uid, ann.primary_group, ann.system) = (Some(500), Some("users".into()), true);
    accounts.apply_user(&ann, TODAY).unwrap();
    assert_eq!(
        accounts.login("ann"),
        Some(Login {
            uid: 500,
            gid: 100,
            home: "/home/ann".into()
        })
    );
    let mut bob = user("bob");
    bob.system = true;
    accounts.apply_user(&bob, TODAY).unwrap();
    assert_eq!(accounts.user_id("bob"), Some(990));
    let mut clash = user("clash");
    clash.uid = Some(500);
    assert!(
        accounts
            .apply_user(&clash, TODAY)
            .unwrap_err()
            .contains("another user's")
    );
    let missing = accounts.apply_group(&Group {
        name: "ops".into(),
        members: vec!["ann".into(), "zoe".into()],
    });
    assert_eq!(missing, ["zoe"]);
    assert!(text(&accounts, "group").contains(":ann\n"));
}

#[test]
fn passwords_are_locked_opened_and_expired() {
    let mut accounts = base();
    assert!(!accounts.has_password("keelson"));
    accounts.set_password("keelson", "$6$a$b", TODAY, false);
    assert!(accounts.has_password("keelson"));
    assert!(text(&accounts, "shadow").contains("keelson:$6$a$b:20000:"));
    accounts.lock("keelson", true);
    accounts.lock("keelson", true);
    assert!(text(&accounts, "shadow").contains("keelson:!$6$a$b:20000:"));
    assert!(accounts.has_password("keelson"));
    accounts.lock("keelson", false);
    accounts.set_password("keelson", "$6$c$d", TODAY, true);
    assert!(text(&accounts, "shadow").contains("keelson:$6$c$d:0:"));
    accounts.set_password("keelson", "$6$c$d", Day(0), false);
    assert!(text(&accounts, "shadow").contains("keelson:$6$c$d:1:"));
}

#[test]
fn unlocking_a_user_without_a_password_does_not_let_anybody_in() {
    let mut accounts = base();
    accounts.apply_user(&user("ann"), TODAY).unwrap();
    accounts.lock("ann", false);
    assert!(text(&accounts, "shadow").contains("ann:!:"));
    assert!(!accounts.has_password("ann"));
}

#[test]
fn accounts_of_a_newer_image_are_added_and_changed_ones_kept() {
    let mut accounts = base();
    accounts.set_password("keelson", "$6$a$b", TODAY, false);
    let mut newer = base();
    newer.apply_user(&user("daemon2"), TODAY).unwrap();
    accounts.add_missing(&newer);
    assert!(text(&accounts, "passwd").contains("daemon2:"));
    assert!(text(&accounts, "shadow").contains("keelson:$6$a$b:"));
}

#[test]
fn days_are_counted_as_shadow_counts_them() {
    for (text, day) in [
        ("1970-01-01", 0),
        ("2000-03-01", 11_017),
        ("2032-09-01", 22_889),
        ("2024-02-29", 19_782),
    ] {
        assert_eq!(Day::parse(text), Some(Day(day)), "{text}");
    }
    for text in [
        "",
        "2023-02-29",
        "2023-13-01",
        "2023-1",
        "yesterday",
        "2023-01-01-01",
        "99999999-01-01",
    ] {
        assert_eq!(Day::parse(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_and_what_was_written_is_read_back(text in "([a-z:!*$,x0-9]{0,30}\n){0,8}") {
        for width in [4, 7, 9] {
            let table = Table::parse(&text, width);
            prop_assert_eq!(Table::parse(&table.text(), width), table);
        }
    }
}
