//! MIME multipart messages (RFC 2045, RFC 2046) as lists of parts.

use mail_parser::{HeaderValue, MessageParser, MessagePart, MimeHeaders, PartType};

/// A part that holds no others.
pub(super) struct MimePart {
    /// `text/cloud-config`, in small letters.
    pub(super) content_type: String,
    /// Name of the attachment.
    pub(super) name: Option<String>,
    /// Content, with its transfer encoding undone.
    pub(super) content: Vec<u8>,
    /// How it is merged (`Merge-Type`, `X-Merge-Type`).
    pub(super) merge: Option<String>,
    /// For which of the instances that were started together it is.
    pub(super) launch_index: Option<String>,
}

/// The parts of a message, in order; `None` when it is none.
pub(super) fn parts(content: &[u8]) -> Option<Vec<MimePart>> {
    let message = MessageParser::new()
        .with_mime_headers()
        .default_header_text()
        .parse(content)?;
    let parts = message.parts.iter();
    Some(parts.filter_map(part).collect())
}

fn part(part: &MessagePart<'_>) -> Option<MimePart> {
    let content = match &part.body {
        PartType::Multipart(_) | PartType::Message(_) => return None,
        PartType::Text(text) | PartType::Html(text) => text.as_bytes().to_vec(),
        PartType::Binary(bytes) | PartType::InlineBinary(bytes) => bytes.to_vec(),
    };
    let content_type = part.content_type().map_or_else(
        || "text/plain".to_owned(),
        |kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default()),
    );
    let header = |names: &[&str]| {
        let mut headers = part.headers.iter();
        let found = headers.find(|header| {
            let mut names = names.iter();
            names.any(|name| header.name().eq_ignore_ascii_case(name))
        })?;
        match found.value() {
            HeaderValue::Text(text) => Some(text.trim().to_owned()),
            HeaderValue::TextList(list) => Some(list.join(",")),
            _ => None,
        }
    };
    Some(MimePart {
        content_type: content_type.to_ascii_lowercase(),
        name: part.attachment_name().map(str::to_owned),
        content,
        merge: header(&["Merge-Type", "X-Merge-Type"]),
        launch_index: header(&["Launch-Index"]),
    })
}
