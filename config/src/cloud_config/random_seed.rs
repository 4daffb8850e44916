//! `random_seed`: bytes for the kernel's random number generator.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::files::unpack_gzip;
use crate::MAX_DOCUMENT_BYTES;
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Node, Shape, Table};

pub(super) static RANDOM_SEED: Table = Table::new(
    "random_seed",
    &[
        ("data", Shape::Text, "What goes to the generator"),
        ("encoding", Shape::Words(&ENCODINGS), "How it is packed"),
    ],
)
.unsupported(&[
    ("command", "the kernel's generator is seeded by itself"),
    (
        "command_required",
        "the kernel's generator is seeded by itself",
    ),
    ("file", "it goes to the kernel's generator"),
]);
const ENCODINGS: [&str; 6] = ["raw", "", "b64", "base64", "gz", "gzip"];

/// The bytes, unpacked.
pub(super) fn parse(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<u8>> {
    let fields = yaml::mapping("random_seed", node, diagnostics)?;
    fields.check(" of random_seed", &RANDOM_SEED, diagnostics);
    let encoding = fields
        .get("encoding")
        .and_then(|node| yaml::string("random_seed.encoding", node, diagnostics));
    let encoding_name = encoding.as_deref();
    if let Some(other) = encoding_name.filter(|name| !ENCODINGS.contains(name)) {
        let message = format!("random_seed: the encoding `{other}` is unknown; it is left out");
        diagnostics.error(node.position, message);
        return None;
    }
    let data = fields.get("data")?;
    let text = yaml::string("random_seed.data", data, diagnostics)?;
    let packed: String = text.split_whitespace().collect();
    let decoded = match encoding.as_deref() {
        Some("b64" | "base64") => STANDARD.decode(packed).map_err(|error| error.to_string()),
        Some("gz" | "gzip") => unpack_gzip(text.as_bytes(), MAX_DOCUMENT_BYTES as u64),
        _ => Ok(text.into_bytes()),
    };
    decoded
        .map_err(|error| {
            diagnostics.error(
                data.position,
                format!("random_seed: {error}; it is left out"),
            );
        })
        .ok()
}
