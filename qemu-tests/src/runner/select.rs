//! Which tests are meant by the names on the command line.

use anyhow::{Result, bail};

/// Indices of the tests that `wanted` names, each by its name or the beginning of it; all when nothing is named.
///
/// # Errors
/// When a word is the beginning of no name; lists the names.
pub fn select(names: &[&str], wanted: &[String]) -> Result<Vec<usize>> {
    if let Some(unknown) = wanted
        .iter()
        .find(|word| !names.iter().any(|name| name.starts_with(word.as_str())))
    {
        bail!(
            "no test is called {unknown}; these are the tests:\n  {}",
            names.join("\n  ")
        );
    }
    let meant = |name: &str| {
        // A whole name means that one only, even when another begins with it.
        wanted.iter().any(|word| {
            name == word || (!names.contains(&word.as_str()) && name.starts_with(word.as_str()))
        })
    };
    Ok((0..names.len())
        .filter(|index| wanted.is_empty() || meant(names[*index]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn names_and_their_beginnings_are_understood() {
        let names = ["boot", "boot_twice", "halt"];
        assert_eq!(select(&names, &[]).unwrap(), [0, 1, 2]);
        assert_eq!(select(&names, &words(&["boot"])).unwrap(), [0]);
        assert_eq!(select(&names, &words(&["bo", "halt"])).unwrap(), [0, 1, 2]);
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_names() {
        let error = select(&["boot", "halt"], &words(&["halt", "hop"]))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "no test is called hop; these are the tests:\n  boot\n  halt"
        );
    }
}
