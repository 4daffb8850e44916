//! The time line as an SVG picture.

use keelson_engine::api::{Boot, BootKind};
use svg::Document;
use svg::node::element::{Line, Rectangle, Style, Text, Title};

use super::{Span, spans};
use crate::output::seconds;

const WIDTH: i64 = 1000;
const ROW_HEIGHT: i64 = 22;
const BAR_HEIGHT: i64 = 14;
const MARGIN: i64 = 20;
/// What a name and a duration need.
const LABEL_WIDTH: i64 = 220;
const AXIS_HEIGHT: i64 = 30;
/// At most so many lines of the grid.
const MAX_GRID_LINES: i64 = 20;
const SECOND: i64 = 1_000_000;
const STYLE: &str = "text{font:12px sans-serif;fill:#222}\
    .axis{fill:#777;font-size:11px}\
    .grid{stroke:#ddd;stroke-width:1}\
    .made{fill-opacity:0.45}\
    .firmware{fill:#9aa5b1}.loader{fill:#7b8794}.kernel{fill:#f0b429}.init{fill:#2bb0ed}.service{fill:#3ebd93}";

/// Places of moments in the picture.
struct Scale {
    first: i64,
    whole: i64,
}

impl Scale {
    /// Pixels from the left.
    fn x(&self, moment: i64) -> i64 {
        let passed = i128::from(moment.saturating_sub(self.first)) * i128::from(WIDTH - 2 * MARGIN)
            / i128::from(self.whole);
        MARGIN + i64::try_from(passed).unwrap_or(WIDTH)
    }
}

/// The picture as the text of an SVG file.
pub(super) fn render(boot: &Boot) -> String {
    let (spans, first, last) = spans(boot);
    let scale = Scale {
        first,
        whole: last.saturating_sub(first).max(1),
    };
    let height = AXIS_HEIGHT + ROW_HEIGHT * i64::try_from(spans.len()).unwrap_or(0) + MARGIN;
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", "sans-serif")
        .add(Style::new(STYLE))
        .add(
            Rectangle::new()
                .set("width", "100%")
                .set("height", "100%")
                .set("fill", "#fff"),
        );
    let step = SECOND * (scale.whole / SECOND / MAX_GRID_LINES + 1);
    // The first whole step that is not before the picture.
    let mut moment = first.div_euclid(step) * step;
    while moment <= last {
        if moment >= first {
            let x = scale.x(moment);
            let line = Line::new().set("class", "grid").set("x1", x).set("x2", x);
            document = document
                .add(line.set("y1", AXIS_HEIGHT - 8).set("y2", height - MARGIN))
                .add(
                    Text::new(format!("{} s", moment / SECOND))
                        .set("class", "axis")
                        .set("x", x + 3)
                        .set("y", AXIS_HEIGHT - 12),
                );
        }
        moment += step;
    }
    for (row, span) in spans.iter().enumerate() {
        let y = AXIS_HEIGHT + ROW_HEIGHT * i64::try_from(row).unwrap_or(0);
        document = draw(document, span, &scale, y);
    }
    format!("{document}\n")
}

fn draw(mut document: Document, span: &Span<'_>, scale: &Scale, y: i64) -> Document {
    let (start, middle, end) = (scale.x(span.start), scale.x(span.middle), scale.x(span.end));
    let class = class(span.kind);
    let took = if span.unfinished {
        "not ready yet".to_owned()
    } else {
        seconds(span.end - span.start)
    };
    // XML cannot hold control characters; the rest is escaped where it is written.
    let label: String = format!("{} {took}", span.name)
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    for (from, to, class) in [
        (start, middle, format!("{class} made")),
        (middle, end.max(start + 2), class.to_owned()),
    ] {
        if to > from {
            let bar = Rectangle::new()
                .set("class", class)
                .set("x", from)
                .set("y", y)
                .set("rx", 2);
            document = document.add(
                bar.set("width", to - from)
                    .set("height", BAR_HEIGHT)
                    .add(Title::new(label.clone())),
            );
        }
    }
    // The text stands where there is room for it: behind the bar, before it, or in it.
    let text = Text::new(label).set("y", y + BAR_HEIGHT - 3);
    document.add(match () {
        () if WIDTH - end > LABEL_WIDTH => text.set("x", end + 6),
        () if start > LABEL_WIDTH => text.set("x", start - 6).set("text-anchor", "end"),
        () => text.set("x", start + 6),
    })
}

fn class(kind: BootKind) -> &'static str {
    match kind {
        BootKind::Firmware => "firmware",
        BootKind::Loader => "loader",
        BootKind::Kernel => "kernel",
        BootKind::Init => "init",
        BootKind::Service => "service",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::tests::example;

    #[test]
    fn each_step_is_a_bar_with_its_name() {
        let picture = render(&example());
        assert!(picture.starts_with("<svg "), "{picture}");
        assert!(picture.contains("log &lt;1&gt; 0.500 s"), "{picture}");
        assert!(!picture.contains("&amp;lt;"), "{picture}");
        assert!(picture.contains("time not ready yet"), "{picture}");
        // Three steps of one part, and two services of two; the background.
        assert_eq!(
            picture.matches("<rect ").count(),
            3 + 2 * 2 + 1,
            "{picture}"
        );
        assert_eq!(picture.matches("class=\"grid\"").count(), 5, "{picture}");
    }

    #[test]
    fn long_and_empty_boots_have_a_grid_that_can_be_read() {
        assert!(render(&Boot::default()).starts_with("<svg "));
        let mut boot = example();
        boot.entries[1].end_us = Some(900 * SECOND);
        assert!(render(&boot).matches("class=\"grid\"").count() <= 22);
    }
}
