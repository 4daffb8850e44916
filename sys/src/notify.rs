//! The service's side of the `sd_notify` protocol (sd_notify(3)).
//!
//! Safe code only; it stands here because several services speak it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The environment variable that names the supervisor's socket.
pub const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Sends one message, lines of `NAME=value`, to the supervisor that `NOTIFY_SOCKET` names. Gives `false` when that
/// variable is not set: nobody listens, as when the program is started by hand.
///
/// # Errors
/// The variable holds no socket address, or what sendto(2) reports.
pub fn notify(message: &str) -> io::Result<bool> {
    let Some(path) = std::env::var_os(SOCKET_VARIABLE) else {
        return Ok(false);
    };
    let address = match path.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(true)
}

/// The value of the last `name=` line of a message.
///
/// ```
/// use keelson_sys::notify::field;
/// assert_eq!(field("READY=1\nSTATUS=up", "STATUS"), Some("up"));
/// ```
#[must_use]
pub fn field<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    message
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name_and_the_last_one_counts() {
        let message = "STATUS=starting\nREADY=1\nSTATUS=up=yes";
        assert_eq!(field(message, "STATUS"), Some("up=yes"));
        assert_eq!(field(message, "READY"), Some("1"));
        assert_eq!(field(message, "STAT"), None);
    }
}
