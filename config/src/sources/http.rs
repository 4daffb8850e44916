//! Questions to a metadata service and its answers. How they travel is the caller's: nothing here opens a connection.

use serde_json::Value as Json;

use crate::diagnostic::Diagnostics;

/// The address that most metadata services listen at (RFC 3927, section 2).
pub const LINK_LOCAL: &str = "http://169.254.169.254";

/// What is done with what an address names (RFC 9110, section 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// It is asked for.
    #[default]
    Get,
    /// Something is made there.
    Put,
    /// It is told something.
    Post,
}

/// One question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What is done.
    pub method: Method,
    /// With what.
    pub url: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// What is sent along.
    pub body: Vec<u8>,
    /// It has to come from a port below 1024, which shows that root asks.
    pub privileged_port: bool,
    /// The answer may be at another address. A metadata service has no reason to send anybody elsewhere.
    pub redirects: bool,
}

/// One answer, whatever its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Its status (RFC 9110, section 15).
    pub status: u16,
    /// Its content.
    pub body: Vec<u8>,
}

/// Carries a question and brings the answer. An error, a sentence for a person, is a service that was not reached.
pub type Exchange<'a> = dyn FnMut(&Request) -> Result<Response, String> + 'a;

/// Asks a metadata service.
pub struct Client<'a> {
    exchange: &'a mut Exchange<'a>,
    headers: Vec<(String, String)>,
}

impl<'a> Client<'a> {
    /// One that asks through `exchange`.
    pub fn new(exchange: &'a mut Exchange<'a>) -> Self {
        Client {
            exchange,
            headers: Vec::new(),
        }
    }

    /// Sends this header field with each question from now on.
    pub fn with_header(&mut self, name: &str, value: impl Into<String>) {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.into()));
    }

    /// Asks a whole question; the client's own header fields are added.
    ///
    /// # Errors
    /// The service was not reached.
    pub fn send(&mut self, mut request: Request) -> Result<Response, String> {
        request.headers.extend(self.headers.iter().cloned());
        (self.exchange)(&request)
    }

    /// Asks for something; `None` when there is no such thing.
    ///
    /// # Errors
    /// The service was not reached, or refuses.
    pub fn get(&mut self, url: &str) -> Result<Option<Vec<u8>>, String> {
        let request = Request {
            url: url.to_owned(),
            ..Request::default()
        };
        let response = self.send(request)?;
        found(url, response)
    }

    /// Asks for something that has to be there.
    ///
    /// # Errors
    /// The service was not reached, refuses, or has no such thing.
    pub fn require(&mut self, url: &str) -> Result<Vec<u8>, String> {
        self.get(url)?
            .ok_or_else(|| format!("{url} answers with status 404"))
    }

    /// Asks for something that has to be there, in JSON.
    ///
    /// # Errors
    /// As [`require`](Self::require); or it is no JSON.
    pub fn json(&mut self, url: &str) -> Result<Json, String> {
        let body = self.require(url)?;
        serde_json::from_slice(&body)
            .map_err(|error| format!("{url} answers with no JSON: {error}"))
    }
}

/// The content of an answer; `None` when there is no such thing.
pub(super) fn found(url: &str, response: Response) -> Result<Option<Vec<u8>>, String> {
    match response.status {
        200..=299 => Ok(Some(response.body)),
        404 | 410 => Ok(None),
        status => Err(format!("{url} answers with status {status}")),
    }
}

/// A part of an answer as a text: a number is one, too. `None` when it is empty.
pub(super) fn text(json: &Json) -> Option<String> {
    match json {
        Json::String(text) if !text.is_empty() => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The first answer that is one, from several addresses of a service; the first error without.
pub(super) fn first_of<T>(
    bases: &[impl AsRef<str>],
    mut ask: impl FnMut(&str) -> Result<T, String>,
) -> Result<T, String> {
    let mut first = None;
    for base in bases {
        match ask(base.as_ref()) {
            Ok(found) => return Ok(found),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| "no address of the service is known".to_owned()))
}

/// What has to be in base64. What is not is an error, and is not there.
pub(super) fn base64(what: &str, text: &[u8], diagnostics: &mut Diagnostics) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let unpacked = base64::engine::general_purpose::STANDARD.decode(text.trim_ascii());
    unpacked
        .map_err(|error| {
            let message = format!("{what}: not base64: {error}; it is not applied");
            diagnostics.error(None, message);
        })
        .ok()
}

/// Bytes that may be in base64, as some who start machines send them.
pub(super) fn maybe_base64(bytes: Vec<u8>) -> Vec<u8> {
    use base64::Engine as _;
    let end = bytes.trim_ascii_end().len();
    let packed = bytes.get(..end).unwrap_or_default();
    match base64::engine::general_purpose::STANDARD.decode(packed) {
        Ok(unpacked) if !unpacked.is_empty() => unpacked,
        _ => bytes,
    }
}

/// Nothing, when there is nothing in it.
pub(super) fn some(bytes: Vec<u8>) -> Option<Vec<u8>> {
    (!bytes.trim_ascii().is_empty()).then_some(bytes)
}

#[cfg(test)]
pub(super) mod fake {
    use super::*;
    use std::collections::BTreeMap;

    /// A service that has documents by address, some for those alone who send a header field.
    pub(crate) struct Service {
        pub(crate) documents: BTreeMap<String, String>,
        pub(crate) requires: Option<(String, String)>,
        pub(crate) asked: Vec<Request>,
    }

    impl Service {
        pub(crate) fn new(base: &str, documents: &[(&str, &str)]) -> Self {
            let documents = documents.iter();
            Service {
                documents: documents
                    .map(|(path, text)| (format!("{base}{path}"), (*text).to_owned()))
                    .collect(),
                requires: None,
                asked: Vec::new(),
            }
        }

        pub(crate) fn answer(&mut self, request: &Request) -> Result<Response, String> {
            self.asked.push(request.clone());
            if let Some(required) = &self.requires
                && request.method == Method::Get
                && !request.headers.contains(required)
            {
                return Ok(Response {
                    status: 401,
                    body: Vec::new(),
                });
            }
            let document = self.documents.get(&request.url);
            Ok(Response {
                status: if document.is_some() { 200 } else { 404 },
                body: document.cloned().unwrap_or_default().into_bytes(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_base64_is_unpacked_and_all_else_left() {
        assert_eq!(
            maybe_base64(b"I2Nsb3VkLWNvbmZpZwo=\n".to_vec()),
            b"#cloud-config\n"
        );
        assert_eq!(
            maybe_base64(b"#cloud-config\n".to_vec()),
            b"#cloud-config\n"
        );
        assert_eq!(maybe_base64(Vec::new()), b"");
    }

    #[test]
    fn an_answer_is_a_thing_none_or_a_refusal() {
        let answer = |status| {
            found(
                "http://h/x",
                Response {
                    status,
                    body: b"x".to_vec(),
                },
            )
        };
        assert_eq!(answer(200), Ok(Some(b"x".to_vec())));
        assert_eq!(answer(404), Ok(None));
        assert_eq!(
            answer(503),
            Err("http://h/x answers with status 503".into())
        );
    }
}
