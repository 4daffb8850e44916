//! Which interface of the configuration a link is.

use keelson_config::network::{Interface, Kind};

use crate::links::Link;

/// How well an interface of the configuration fits a link; `None` when it does not.
pub(crate) fn fit(interface: &Interface, link: &Link) -> Option<u32> {
    match interface.kind {
        Kind::Physical => {}
        Kind::Loopback => return (link.name == "lo").then_some(64),
        _ => return (link.name == interface.name).then_some(64),
    }
    let is_card = link.has_device && !link.wireless;
    let mut score = 0;
    if let Some(name) = &interface.matches.name {
        // It may have got its other name already.
        if *name == link.name || interface.set_name.as_ref() == Some(&link.name) {
            score += 8;
        } else if glob(name, &link.name) && is_card {
            score += 1;
        } else {
            return None;
        }
    }
    if let Some(mac) = &interface.matches.mac {
        let own = link.mac();
        // Where the card's own is not told, the one that it gets is as good.
        let given = interface.mac.as_ref() == Some(&own) && link.permanent_address.is_none();
        if *mac == own || given {
            score += 32;
        } else if glob(mac, &own) && is_card {
            score += 16;
        } else {
            return None;
        }
    }
    let drivers = &interface.matches.driver;
    if !drivers.is_empty() {
        if !drivers.iter().any(|driver| glob(driver, &link.driver)) {
            return None;
        }
        score += 2;
    }
    // A VLAN has the hardware address of the interface below it.
    let is_made = !link.kind.is_empty() && link.kind != "veth";
    (score > 0 && !is_made).then_some(score)
}

/// Whether `text` fits a pattern of a shell: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    fits(&pattern, &text)
}

fn fits(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => {
            (0..=text.len()).any(|skip| fits(rest, text.get(skip..).unwrap_or_default()))
        }
        Some((first, rest)) => {
            let Some((letter, others)) = text.split_first() else {
                return false;
            };
            match (first, rest.iter().position(|letter| *letter == ']')) {
                ('?', _) => fits(rest, others),
                ('[', Some(end)) => {
                    let class = rest.get(..end).unwrap_or_default();
                    let (negated, class) = match class.split_first() {
                        Some(('!' | '^', class)) => (true, class),
                        _ => (false, class),
                    };
                    in_class(class, *letter) != negated
                        && fits(rest.get(end + 1..).unwrap_or_default(), others)
                }
                _ => first == letter && fits(rest, others),
            }
        }
    }
}

fn in_class(class: &[char], letter: char) -> bool {
    let mut rest = class;
    while let Some((first, others)) = rest.split_first() {
        if let ['-', last, ..] = others {
            if (*first..=*last).contains(&letter) {
                return true;
            }
            rest = others.get(2..).unwrap_or_default();
        } else {
            if *first == letter {
                return true;
            }
            rest = others;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_those_of_a_shell() {
        assert!(glob("en*", "enp0s1") && glob("eth[0-3]", "eth2") && glob("e?h0", "eth0"));
        assert!(!glob("eth[!0]", "eth0") && !glob("eth", "eth0"));
    }
}
