//! What can go wrong, and the exit status of each.

use std::io;

use thiserror::Error;

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// What was asked for could not be done.
    #[error("{0}")]
    Failed(String),
    /// The command line makes no sense. (Most of this kind are clap's own, with the same status.)
    #[error("{0}")]
    Usage(String),
    /// Whoever should answer does not.
    #[error("{what} does not answer: {error}{hint}")]
    Unreachable {
        /// Who.
        what: &'static str,
        /// Why.
        error: io::Error,
        /// What to do about it.
        hint: &'static str,
    },
    /// There is no such thing.
    #[error("no such {kind}: `{name}`{}", hint(.nearest.as_deref()))]
    Unknown {
        /// What kind of thing.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// The output could not be written.
    #[error("write the output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Output(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable { .. } => 3,
            Failure::Unknown { .. } => 4,
        }
    }

    /// `what` could not be reached, or its answer not be read.
    pub(crate) fn unreachable(what: &'static str, error: io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => " (you are not allowed to ask it: use sudo)",
            io::ErrorKind::NotFound => " (is this a Keelson system?)",
            _ => "",
        };
        Failure::Unreachable { what, error, hint }
    }

    /// There is no `kind` named `name`; `known` are those that there are.
    pub(crate) fn unknown<'a>(
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let nearest = known
            .into_iter()
            .map(|known| (strsim::osa_distance(name, known), known))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
            .map(|(_, known)| known.to_owned());
        Failure::Unknown {
            kind,
            name: name.to_owned(),
            nearest,
        }
    }
}

fn hint(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_comes_with_the_nearest_one() {
        let known = ["console", "docker", "network"];
        assert_eq!(
            Failure::unknown("service", "netwrok", known).to_string(),
            "no such service: `netwrok`; did you mean `network`?"
        );
        assert_eq!(
            Failure::unknown("service", "frobnicate", known).to_string(),
            "no such service: `frobnicate`"
        );
    }
}
