//! Questions to services that speak HTTP, for programs that do not: JSON lines on standard input, and an answer to each on standard
//! output. System services have no other client of HTTP.
//!
//! A question is `{"method": "GET", "url": ..., "headers": [[NAME, VALUE]..], "body": BASE64, "privileged_port": false,
//! "redirects": false}`, of which all but `url` may be left out; an answer is `{"status": 200, "body": BASE64}`, or `{"error": SENTENCE,
//! "permanent": false}` when there is none; with `true` another try would bring the same.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use serde::{Deserialize, Serialize};
use ureq::config::Config;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, SendBody, http};

use crate::access::certificates;
use crate::arguments::Request;
use crate::registry::authorities;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// More is no document.
const MAX_BODY_BYTES: u64 = 1024 * 1024;
const MAX_REDIRECTS: u32 = 5;
/// Ports that root alone may use and that no service has by custom.
const PRIVILEGED_PORTS: std::ops::Range<u16> = 700..1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// It has to come from a port below 1024, which shows that root asks.
    #[serde(default)]
    privileged_port: bool,
    /// The answer may be at another address.
    #[serde(default)]
    redirects: bool,
}

fn get() -> String {
    "GET".to_owned()
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Answered { status: u16, body: String },
    Unreached { error: String, permanent: bool },
}

/// Answers until there are no more questions.
///
/// # Errors
/// A line is no question, or an answer cannot be written.
pub(crate) fn exchange(request: &Request) -> anyhow::Result<()> {
    let certificates = certificates(request)?;
    let config = config(&certificates, 0, false);
    let plain = config.new_agent();
    let redirected = self::config(&certificates, MAX_REDIRECTS, false).new_agent();
    // Nobody sends those who ask with TLS to somebody without.
    let secure = self::config(&certificates, MAX_REDIRECTS, true).new_agent();
    let privileged = Agent::with_parts(config.clone(), Privileged, DefaultResolver::default());
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?).context("a line is no question")?;
        let agent = match (question.privileged_port, question.redirects) {
            (true, _) => &privileged,
            (false, false) => &plain,
            (false, true) if question.url.starts_with("https:") => &secure,
            (false, true) => &redirected,
        };
        let answer = ask(agent, &question).unwrap_or_else(|error| Answer::Unreached {
            permanent: is_permanent(&error),
            error: format!("{}: {error:#}", shown(&question.url)),
        });
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

/// An agent that fetches what may be long: each answer may take its time as long as something comes.
pub(crate) fn downloads(pem: &[u8], https_only: bool) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .https_only(https_only)
        .user_agent(concat!("keelson/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(WHOLE_TIMEOUT))
        .timeout_recv_body(Some(2 * WHOLE_TIMEOUT))
        .tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::new_with_certs(&authorities(pem)))
                .build(),
        );
    config.build().new_agent()
}

fn ask(agent: &Agent, question: &Question) -> anyhow::Result<Answer> {
    let mut request = http::Request::builder()
        .method(question.method.as_str())
        .uri(&question.url);
    for (name, value) in &question.headers {
        request = request.header(name, value);
    }
    let sent = STANDARD
        .decode(&question.body)
        .context("the body is not base64")?;
    let (length, body) = match question.method.as_str() {
        "GET" => (None, SendBody::none()),
        _ => (
            Some(sent.len()),
            SendBody::from_owned_reader(io::Cursor::new(sent)),
        ),
    };
    if let Some(length) = length {
        request = request.header("Content-Length", length);
    }
    let mut answer = agent.run(request.body(body)?)?;
    let mut content = Vec::new();
    let mut reader = answer.body_mut().as_reader().take(MAX_BODY_BYTES + 1);
    reader.read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BODY_BYTES {
        return Err(TooLarge.into());
    }
    Ok(Answer::Answered {
        status: answer.status().as_u16(),
        body: STANDARD.encode(content),
    })
}

/// Without what may be a secret in it.
fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Whether another try would bring the same.
fn is_permanent(error: &anyhow::Error) -> bool {
    if error.is::<TooLarge>() || error.is::<http::Error>() {
        return true;
    }
    let error = error.downcast_ref::<ureq::Error>();
    error.is_some_and(|error| {
        matches!(
            error,
            ureq::Error::BadUri(_)
                | ureq::Error::Http(_)
                | ureq::Error::TooManyRedirects
                | ureq::Error::RedirectFailed
        )
    })
}

/// An answer that is no document.
#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {MAX_BODY_BYTES} bytes")]
struct TooLarge;

fn config(pem: &[u8], redirects: u32, https_only: bool) -> Config {
    let roots = RootCerts::new_with_certs(&authorities(pem));
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(redirects)
        .https_only(https_only)
        // A service on the link needs no way around.
        .proxy(None)
        .user_agent(concat!("keelson/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_global(Some(WHOLE_TIMEOUT))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build()
}

/// Connects from a port below 1024, without TLS.
#[derive(Debug)]
struct Privileged;

impl Connector for Privileged {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connection>, ureq::Error> {
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address");
        for address in &details.addrs {
            match connect_privileged(*address) {
                Ok(stream) => {
                    let buffers = LazyBuffers::new(
                        details.config.input_buffer_size(),
                        details.config.output_buffer_size(),
                    );
                    return Ok(Some(Connection { stream, buffers }));
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }
}

fn connect_privileged(to: SocketAddr) -> io::Result<TcpStream> {
    let (family, any) = match to {
        SocketAddr::V4(_) => (AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in PRIVILEGED_PORTS {
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(CONNECT_TIMEOUT))?;
        let tried = bind(&socket, &SocketAddr::new(any, port)).and_then(|()| connect(&socket, &to));
        match tried {
            Ok(()) => return Ok(TcpStream::from(socket)),
            // Somebody has it, or had it a moment ago.
            Err(error @ (rustix::io::Errno::ADDRINUSE | rustix::io::Errno::ADDRNOTAVAIL)) => {
                last = error.into()
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(last)
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
}

/// As long as is left, and never no time at all, which would be for ever.
fn time_left(timeout: NextTimeout) -> Option<Duration> {
    let left = timeout.not_zero()?;
    Some((*left).max(Duration::from_millis(1)))
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.set_write_timeout(time_left(timeout))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.set_read_timeout(time_left(timeout))?;
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Each question has a connection of its own.
        false
    }
}
