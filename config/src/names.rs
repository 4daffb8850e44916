//! What may be the name of a user, a group, a host, or the text of a field of `/etc/passwd`.

/// Whether `name` can be a user or a group: a letter or `_`, then letters, digits, `_`, `-`, `.`; at most 32 characters.
pub fn is_account(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && name.len() <= 32
}

/// Whether `name` can be a host's name, with or without domain (RFC 1123, section 2.1).
pub fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Whether `name` can be the name of a variable (POSIX.1-2017, section 3.235).
pub fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether `name` can be the name of a container: Docker's rule.
pub fn is_container(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Whether `name` can be the name of a network interface: Linux' `dev_valid_name`.
pub fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control() || "/:".contains(letter))
}

/// The same, without letters that mean something to iptables(8): `+` is any ending, `!` none of these.
pub fn is_plain_interface(name: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-@".contains(letter);
    is_interface(name) && !name.starts_with('-') && name.chars().all(is_plain)
}

/// Whether `text` fits in a field of `/etc/passwd` and its like: no colon, no control character.
pub fn is_field(text: &str) -> bool {
    !text.contains(':') && !text.chars().any(char::is_control)
}

/// Whether `path` is absolute, without `.` or `..` parts, and names something below the root.
pub fn is_absolute_path(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| part != "." && part != "..")
        && path.split('/').any(|part| !part.is_empty())
        && !path.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_names_are_those_that_tools_take() {
        for good in ["ann", "_chrony", "www-data", "Ann.B", "a1"] {
            assert!(is_account(good), "{good}");
        }
        for bad in [
            "",
            "1a",
            "-a",
            "a:b",
            "a b",
            "ann\n",
            "../x",
            &"a".repeat(33),
        ] {
            assert!(!is_account(bad), "{bad}");
        }
    }

    #[test]
    fn host_names_are_those_of_rfc_1123() {
        for good in ["a", "node-1", "1node", "a.example.org"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a_b", "a b", ".", &"a".repeat(64)] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn paths_stay_below_the_root() {
        assert!(is_absolute_path("/etc/motd"));
        for bad in [
            "",
            "/",
            "etc/motd",
            "/etc/../x",
            "/etc/./x",
            "/etc/",
            "/a\0b",
        ] {
            assert!(!is_absolute_path(bad), "{bad}");
        }
    }
}
