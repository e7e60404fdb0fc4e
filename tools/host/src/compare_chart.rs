//! The bar chart of `compare`: an SVG of our own making, horizontal bars on a logarithmic scale, readable on light and on
//! dark ground.

use crate::budgets::number;
use crate::compare_report::{Comparison, Pair, Row, Unit};
use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
/// Where bars start and end; the labels stand before, the longest number behind.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 770.0;
const TOP: f64 = 74.0;
const BAR: f64 = 7.0;
/// Height of a row: four bars and the room between rows.
const ROW: f64 = 4.0 * BAR + 9.0;
/// Powers of ten at both ends of the scale.
const FIRST_POWER: i32 = 1;
const LAST_POWER: i32 = 9;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.s{font-size:9px}.t{font-size:15px;font-weight:600}\
.g{stroke:#d0d7de}.a{fill:#8c959f}.b{fill:#0969da}.c{fill:#c9a26b}.d{fill:#1a7f37}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{stroke:#30363d}.a{fill:#6e7681}.b{fill:#58a6ff}.c{fill:#9e7b45}.d{fill:#3fb950}}";

/// The chart; rows that are not counted in instructions are left out.
pub fn svg(comparison: &Comparison) -> String {
    let rows: Vec<&Row> = comparison.rows.iter().filter(|r| r.unit == Unit::Instructions).collect();
    let bottom = TOP + rows.len() as f64 * ROW;
    let height = bottom + 46.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\">\n<title>Executed instructions, Linux and Quiesce</title>\n<style>{STYLE}</style>\n\
         <text class=\"t\" x=\"10\" y=\"22\">Executed instructions for the same work (shorter is better)</text>\n"
    );
    let legend = [("a", "Linux"), ("b", "Quiesce"), ("c", "Linux, tracked CPU"), ("d", "Quiesce, tracked CPU")];
    for (i, (class, text)) in legend.iter().enumerate() {
        let x = LEFT + 140.0 * i as f64;
        let _ = writeln!(svg, "<rect class=\"{class}\" x=\"{x}\" y=\"36\" width=\"10\" height=\"10\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"45\">{text}</text>", x + 15.0);
    }
    for power in FIRST_POWER..=LAST_POWER {
        let x = place(10f64.powi(power));
        let _ =
            writeln!(svg, "<line class=\"g\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>", TOP - 6.0);
        let label = match power {
            1 => "10".into(),
            power => format!("10<tspan dy=\"-4\">{power}</tspan>"),
        };
        let _ = writeln!(
            svg,
            "<text class=\"s\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            TOP - 10.0
        );
    }
    for (i, row) in rows.iter().enumerate() {
        let y = TOP + i as f64 * ROW;
        let middle = y + 2.0 * BAR + 4.0;
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, escaped(row.what));
        let pairs = [(&row.off, ["a", "b"]), (&row.tracked, ["c", "d"])];
        for (group, (pair, classes)) in pairs.into_iter().enumerate() {
            let Pair { linux, ours } = *pair;
            for (j, (value, class)) in [linux, ours].into_iter().zip(classes).enumerate() {
                bar(&mut svg, value, class, y + (2 * group + j) as f64 * BAR);
            }
        }
    }
    let Comparison { linux, ours, qemu, date, .. } = comparison;
    let foot =
        format!("{date}, {linux} with mitigations=off, Quiesce {ours}, QEMU {qemu} with -icount shift=0; make compare");
    let _ = writeln!(svg, "<text class=\"s\" x=\"10\" y=\"{}\">{}</text>\n</svg>", bottom + 26.0, escaped(&foot));
    svg
}

fn bar(svg: &mut String, value: Option<f64>, class: &str, y: f64) {
    let Some(value) = value else { return };
    let end = place(value);
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\"/>",
        (end - LEFT).max(0.0),
        BAR - 1.0
    );
    let _ = writeln!(svg, "<text class=\"s\" x=\"{:.1}\" y=\"{}\">{}</text>", end + 3.0, y + BAR - 0.5, number(value));
}

/// The x of a value, within the scale.
fn place(value: f64) -> f64 {
    let span = f64::from(LAST_POWER - FIRST_POWER);
    let part = (value.max(1.0).log10() - f64::from(FIRST_POWER)) / span;
    LEFT + part.clamp(0.0, 1.0) * (RIGHT - LEFT)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budgets::Metric;

    #[test]
    fn bars_grow_with_the_logarithm() {
        assert_eq!(place(10.0), LEFT);
        assert_eq!(place(0.0), LEFT);
        assert_eq!(place(1e9), RIGHT);
        assert_eq!(place(1e30), RIGHT);
        let step = place(1000.0) - place(100.0);
        assert!((place(10_000.0) - place(1000.0) - step).abs() < 1e-9);
    }

    #[test]
    fn every_value_has_a_bar_and_text_is_escaped() {
        let metric = |value| Metric { name: "off.syscall_getppid.med".into(), value, unit: String::new() };
        let comparison = Comparison::new("a<b".into(), "1".into(), &[metric(323.0)], &[metric(49.0)]);
        let svg = svg(&comparison);
        assert!(svg.contains(">323</text>") && svg.contains(">49</text>") && svg.contains("a&lt;b"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 4 + 2);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
