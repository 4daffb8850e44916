//! Path patterns of the recipes: `*` and `?` within one path component, `**` for any number of components.

/// Whether `path` (relative, no leading slash) matches `pattern`.
///
/// `usr/share/doc/**` matches everything below `usr/share/doc`, not the directory itself; `**/*.a` matches at any depth.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    components(&pattern, &path)
}

/// Whether any of `patterns` matches `path`.
pub(crate) fn any_matches(patterns: &[String], path: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, path))
}

fn components(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", [])), rest) => rest.is_some(),
        (Some((&"**", tail)), _) => {
            components(tail, path) || (!path.is_empty() && components(pattern, &path[1..]))
        }
        (Some((head, tail)), Some((name, rest))) => {
            component(head.as_bytes(), name.as_bytes()) && components(tail, rest)
        }
        _ => false,
    }
}

/// Matches one component, going back to the last `*` on a mismatch.
fn component(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at_name < name.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                star = Some((at_pattern, at_name));
                at_pattern += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[at_name] => {
                at_pattern += 1;
                at_name += 1;
            }
            _ => match star {
                Some((pattern_start, name_start)) => {
                    star = Some((pattern_start, name_start + 1));
                    at_pattern = pattern_start + 1;
                    at_name = name_start + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at_pattern..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        let cases = [
            ("usr/share/doc/**", "usr/share/doc/bash/README", true),
            ("usr/share/doc/**", "usr/share/doc", false),
            ("/usr/share/doc/**", "usr/share/doc/x", true),
            ("**/*.a", "usr/lib/libc.a", true),
            ("**/*.a", "libc.a", true),
            ("**/*.a", "usr/lib/libc.so", false),
            ("usr/*/bash", "usr/bin/bash", true),
            ("usr/*/bash", "usr/local/bin/bash", false),
            ("usr/**/bash", "usr/local/bin/bash", true),
            ("usr/**/bash", "usr/bash", true),
            ("*", "usr", true),
            ("*", "usr/bin", false),
            ("lib?.so", "libc.so", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("net/netfilter/**", "net/netfilter/nf_tables.ko", true),
            ("", "x", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_path_matches_itself_and_the_pattern_of_everything(path in "[a-z]{1,5}(/[a-z.-]{1,5}){0,4}") {
            proptest::prop_assert!(matches(&path, &path));
            proptest::prop_assert!(matches("**", &path));
        }
    }
}
