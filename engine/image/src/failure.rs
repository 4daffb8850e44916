//! Failures in Docker's words, with the status that its API answers them with.

use keelson_image::store::Error;
use std::fmt;

/// A failure with a status of HTTP.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Failure {
    /// As an error.
    pub(crate) fn error(status: u16, message: impl Into<String>) -> anyhow::Error {
        let message = message.into();
        Self { status, message }.into()
    }

    /// The status that an error is answered with.
    pub(crate) fn status_of(error: &anyhow::Error) -> u16 {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.status;
        }
        match error.downcast_ref::<Error>() {
            Some(Error::Missing(_)) => 404,
            Some(Error::Ambiguous(_) | Error::Invalid(_)) => 400,
            _ => 500,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
