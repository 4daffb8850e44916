//! Carries questions to services and brings their answers, through the one client of HTTP that system services have:
//! `keelson-image exchange`, whose lines its source describes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_config::instance::{CERTIFICATES_DIRECTORY, CONFIG_DIRECTORY};
use keelson_config::sources::http::{Method, Request, Response};
use serde_json::{Value as Json, json};

const PROGRAM: &str = "usr/bin/keelson-image";
/// Authorities: the console's, and the user's own.
const BUNDLE: &str = "usr/share/keelson/console/etc/ssl/certs/ca-certificates.crt";

/// Carries questions.
pub(super) struct Http {
    root: PathBuf,
    client: Option<Client>,
}

impl Http {
    /// With the program and the authorities that are below `root`.
    pub(super) fn new(root: &Path) -> Self {
        Http {
            root: root.to_owned(),
            client: None,
        }
    }

    /// Carries one question. An error is a sentence for a person: the service was not reached.
    pub(super) fn exchange(&mut self, request: &Request) -> Result<Response, String> {
        self.try_exchange(request).map_err(|failure| failure.why)
    }

    /// The same, with word on whether it is worth another try.
    pub(super) fn try_exchange(&mut self, request: &Request) -> Result<Response, Failure> {
        let failure = |why: String, is_permanent| Failure { why, is_permanent };
        let answer = match self.carry(request) {
            Ok(answer) => answer,
            Err(error) => {
                // The next question has a fresh one.
                self.client = None;
                return Err(failure(format!("{error:#}"), false));
            }
        };
        if let Some(error) = answer["error"].as_str() {
            return Err(failure(error.to_owned(), answer["permanent"] == true));
        }
        let status = answer["status"]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok());
        let body = answer["body"]
            .as_str()
            .and_then(|body| STANDARD.decode(body).ok());
        match (status, body) {
            (Some(status), Some(body)) => Ok(Response { status, body }),
            _ => Err(failure(format!("{PROGRAM} gives no answer"), false)),
        }
    }

    fn carry(&mut self, request: &Request) -> Result<Json> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::start(&self.root)?),
        };
        let method = match request.method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Post => "POST",
        };
        let question = json!({
            "method": method,
            "url": request.url,
            "headers": request.headers,
            "body": STANDARD.encode(&request.body),
            "privileged_port": request.privileged_port,
            "redirects": request.redirects,
        });
        let ends = || format!("{PROGRAM} ends");
        client
            .questions
            .write_all(format!("{question}\n").as_bytes())
            .with_context(ends)?;
        let mut line = String::new();
        client.answers.read_line(&mut line).with_context(ends)?;
        serde_json::from_str(&line).with_context(ends)
    }
}

/// Why there is no answer.
pub(super) struct Failure {
    /// A sentence for a person.
    pub(super) why: String,
    /// Another try would bring the same.
    pub(super) is_permanent: bool,
}

/// The program, as long as it is of use.
struct Client {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start(root: &Path) -> Result<Self> {
        let own = root
            .join(CONFIG_DIRECTORY.trim_start_matches('/'))
            .join(CERTIFICATES_DIRECTORY);
        let mut child = Command::new(root.join(PROGRAM))
            .arg("--certificates")
            .arg(root.join(BUNDLE))
            .arg("--certificates")
            .arg(own)
            .arg("exchange")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {PROGRAM}"))?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("start {PROGRAM}: it has no pipes");
        };
        Ok(Client {
            child,
            questions,
            answers: BufReader::new(answers),
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may be waiting for a service.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
