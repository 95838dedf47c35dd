//! The chart: one panel for each column, bars on a logarithmic scale.

use std::fmt::Write as _;

use crate::stats::Unit;

/// One bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) figure: f64,
    pub(crate) kind: Kind,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Peer,
    Limit,
    /// A peer that does less than was asked.
    Less,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Peer => "peer",
            Self::Limit => "limit",
            Self::Less => "less",
        }
    }
}

/// Bars that are compared, the best first.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) bars: Vec<Bar>,
}

const WIDTH: f64 = 920.0;
const PANEL: f64 = 440.0;
const GAP: f64 = 40.0;
const NAME: f64 = 88.0;
const VALUE: f64 = 78.0;
const LINE: f64 = 19.0;
const HEAD: f64 = 46.0;
/// Bars begin so far below the smallest figure that it is still one.
const ROOM: f64 = 2.0;

/// Readable on a light page and on a dark one.
const STYLE: &str = "\
text{font:12px system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif;fill:#1f2328}\
.title{font-weight:600;font-size:13px}.note{fill:#59636e;font-size:11px}\
.value{font-variant-numeric:tabular-nums}.bold{font-weight:600}\
.ours{fill:#d9480f}.peer{fill:#8fa3bf}.less{fill:none;stroke:#8fa3bf;stroke-dasharray:3 2}\
.limit{fill:none;stroke:#1a7f37;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}\
.ours{fill:#ff8a4c}.peer{fill:#5b6f8c}.less{stroke:#7d8fa9}.limit{stroke:#3fb950}}";

/// The whole file.
pub(crate) fn draw(title: &str, note: &str, panels: &[Panel]) -> String {
    let height_of = |panel: &Panel| HEAD + panel.bars.len() as f64 * LINE + 22.0;
    let mut body = String::new();
    let mut top = 62.0;
    for pair in panels.chunks(2) {
        for (panel, left) in pair.iter().zip([0.0, PANEL + GAP]) {
            draw_panel(&mut body, panel, (left, top));
        }
        top += pair.iter().map(height_of).fold(0.0, f64::max);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" \
         width=\"{WIDTH}\" height=\"{top}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n\
         <text class=\"title\" x=\"0\" y=\"16\">{title}</text>\n\
         <text class=\"note\" x=\"0\" y=\"34\">{note}</text>\n{}{body}</svg>\n",
        legend(),
        title = escape(title),
        note = escape(note),
    )
}

fn legend() -> String {
    let mut text = String::new();
    let entries = [
        ("ours", "Annals"),
        ("peer", "others"),
        ("limit", "limit: the least that the machine must do"),
        ("less", "does less than was asked: see the table"),
    ];
    let mut left = 0.0;
    for (class, words) in entries {
        add(
            &mut text,
            &format!(
                "<rect class=\"{class}\" x=\"{}\" y=\"45\" width=\"12\" height=\"9\"/>\
             <text class=\"note\" x=\"{}\" y=\"53\">{words}</text>\n",
                left + 1.0,
                left + 18.0
            ),
        );
        left += 40.0 + 6.0 * words.len() as f64;
    }
    text
}

fn draw_panel(body: &mut String, panel: &Panel, (left, top): (f64, f64)) {
    let better = if panel.unit.more_is_better() { "more is better" } else { "less is better" };
    add(
        body,
        &format!(
            "<text class=\"title\" x=\"{left}\" y=\"{}\">{}</text>\
         <text class=\"note\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{better}</text>\n",
            top + 24.0,
            escape(&panel.title),
            left + PANEL,
            top + 24.0
        ),
    );
    let Some((least, most)) = ends(&panel.bars) else { return };
    let room = PANEL - NAME - VALUE;
    for (line, bar) in panel.bars.iter().enumerate() {
        let y = top + HEAD - 10.0 + line as f64 * LINE;
        let length = (room * share(bar.figure, least, most)).max(1.0);
        let bold = if bar.kind == Kind::Ours { " bold" } else { "" };
        add(
            body,
            &format!(
                "<text class=\"name{bold}\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{}\" y=\"{y}\" width=\"{length:.1}\" height=\"13\" rx=\"2\"/>\
             <text class=\"value{bold}\" x=\"{:.1}\" y=\"{}\">{}</text>\n",
                left + NAME - 8.0,
                y + 11.0,
                escape(&bar.name),
                bar.kind.class(),
                left + NAME,
                left + NAME + length + 6.0,
                y + 11.0,
                escape(&panel.unit.show(bar.figure)),
            ),
        );
    }
}

fn add(text: &mut String, more: &str) {
    // Writing into a string does not fail.
    text.write_str(more).unwrap_or_default();
}

/// The scale: from below the smallest figure to the largest.
fn ends(bars: &[Bar]) -> Option<(f64, f64)> {
    let figures = || bars.iter().map(|bar| bar.figure).filter(|figure| *figure > 0.0);
    Some((figures().reduce(f64::min)? / ROOM, figures().reduce(f64::max)?))
}

/// How much of the scale a bar takes, from 0 to 1.
fn share(figure: f64, least: f64, most: f64) -> f64 {
    if figure <= least { 0.0 } else { (figure / least).ln() / (most / least).ln() }
}

/// Text that may stand in a document of marks.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_in_a_text_stay_text() {
        assert_eq!(escape("a<b> & \"c\" 'd'"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;");
        let bars = vec![Bar { name: "<x>".to_owned(), figure: 1.0, kind: Kind::Ours }];
        let panel = Panel { title: "a & b".to_owned(), unit: Unit::Rate, bars };
        let svg = draw("<t>", "n", &[panel]);
        assert!(
            svg.contains("&lt;x&gt;") && svg.contains("a &amp; b") && svg.contains("&lt;t&gt;")
        );
        assert!(!svg.contains("<x>") && !svg.contains("<t>"));
    }

    #[test]
    fn the_scale_is_logarithmic_and_ends_at_the_largest() {
        let bars: Vec<_> = [10.0, 1_000.0]
            .map(|figure| Bar { name: String::new(), figure, kind: Kind::Peer })
            .into();
        let (least, most) = ends(&bars).unwrap();
        assert_eq!((least, most), (5.0, 1_000.0));
        assert!((share(1_000.0, least, most) - 1.0).abs() < 1e-9);
        assert!((share(5.0_f64.mul_add(200.0_f64.sqrt(), 0.0), least, most) - 0.5).abs() < 1e-9);
        assert!(share(0.0, least, most) < 1e-9);
    }

    #[test]
    fn a_panel_of_nothing_is_drawn() {
        let panel = Panel { title: "t".to_owned(), unit: Unit::Bytes, bars: Vec::new() };
        assert!(draw("a", "b", &[panel]).ends_with("</svg>\n"));
    }
}
