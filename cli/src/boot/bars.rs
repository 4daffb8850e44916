//! The time line as bars of text.

use keelson_engine::api::Boot;

use super::{Span, spans};
use crate::output::seconds;

const MIN_BAR_COLUMNS: usize = 20;
const MADE: char = '░';
const RUNS: char = '█';

/// One line an entry, in `width` columns.
pub(super) fn render(boot: &Boot, width: usize) -> String {
    let (spans, first, last) = spans(boot);
    if spans.is_empty() {
        return "nothing is known of this boot\n".to_owned();
    }
    let names = spans
        .iter()
        .map(|span| span.name.chars().count())
        .max()
        .unwrap_or(0);
    let times = spans
        .iter()
        .map(|span| seconds(span.start).len().max(length(span).len()))
        .max()
        .unwrap_or(0);
    let columns = width
        .saturating_sub(names + 2 * times + 6)
        .max(MIN_BAR_COLUMNS);
    let mut text = format!("{:names$}  {:>times$}  {:>times$}\n", "", "from", "took");
    for span in &spans {
        let bar = bar(span, first, last, columns);
        let line = format!(
            "{:names$}  {:>times$}  {:>times$}  {bar}",
            span.name,
            seconds(span.start),
            length(span)
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str(&format!("\n{MADE} the container is made  {RUNS} until it is ready; times count from the kernel's start\n"));
    text
}

fn length(span: &Span<'_>) -> String {
    if span.unfinished {
        "...".to_owned()
    } else {
        seconds(span.end - span.start)
    }
}

fn bar(span: &Span<'_>, first: i64, last: i64, columns: usize) -> String {
    let whole = u128::from(last.abs_diff(first)).max(1);
    let column = |moment: i64| {
        let passed = u128::from(moment.abs_diff(first)) * columns as u128 / whole;
        usize::try_from(passed).unwrap_or(columns).min(columns)
    };
    let start = column(span.start).min(columns - 1);
    let middle = column(span.middle).max(start);
    // Also the shortest step is seen.
    let end = column(span.end).max(middle).max(start + 1);
    let mut bar = " ".repeat(start);
    bar.extend(std::iter::repeat_n(MADE, middle - start));
    bar.extend(std::iter::repeat_n(RUNS, end - middle));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::tests::example;

    #[test]
    fn bars_show_when_each_step_began_and_ended() {
        let text = render(&example(), 50);
        let expected = [
            "              from      took",
            "firmware  -1.000 s   1.000 s  █████",
            "kernel     0.000 s   2.000 s       ██████████",
            "initrd     2.000 s   0.500 s                 ██",
            "log <1>    2.500 s   0.500 s                   ░██",
            "time       2.500 s       ...                   ░██",
            "",
            "░ the container is made  █ until it is ready; times count from the kernel's start",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn nothing_and_narrow_terminals_are_no_trouble() {
        assert_eq!(
            render(&Boot::default(), 80),
            "nothing is known of this boot\n"
        );
        assert!(render(&example(), 1).lines().count() > 5);
    }
}
