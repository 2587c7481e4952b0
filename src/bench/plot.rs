//! Lines in a coordinate system, as SVG that stands in a page by itself.

use crate::eval::page::escaped;
use std::fmt::Write;

pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    pub(super) series: Vec<Series>,
}

/// A line; its colour says whose it is, its strokes which of theirs.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: usize,
    pub(super) dashed: bool,
    /// A mark at each point; without, only the line.
    pub(super) marked: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Apart for every eye (Okabe and Ito, 2008).
pub(super) const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b6b6b"];

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

impl Plot<'_> {
    /// A figure with its heading and legend; nothing where all points stand at one place.
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        if points().all(|point| Some(point.0) == points().next().map(|first| first.0)) {
            return String::new();
        }
        let x_axis = Axis::to(points().map(|point| point.0).fold(0.0, f64::max));
        let y_axis = Axis::to(points().map(|point| point.1).fold(0.0, f64::max));
        let x = |value: f64| LEFT + value / x_axis.end * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - value / y_axis.end * (HEIGHT - TOP - BOTTOM);
        let mut marks = String::new();
        for tick in x_axis.ticks() {
            let _ = write!(
                marks,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(tick),
                HEIGHT - BOTTOM + 16.0,
                x_axis.label(tick)
            );
        }
        for tick in y_axis.ticks() {
            let _ = write!(
                marks,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y(tick) + 4.0,
                y_axis.label(tick),
                at = y(tick),
            );
        }
        let _ = write!(
            marks,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escaped(self.x_label),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escaped(self.y_label)
        );
        for series in &self.series {
            let colour = COLOURS[series.colour % COLOURS.len()];
            let line: Vec<String> =
                series.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
            let dash = if series.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
            let _ = write!(
                marks,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash} points=\"{}\"/>",
                line.join(" ")
            );
            for point in series.points.iter().filter(|_| series.marked) {
                let _ = write!(
                    marks,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"><title>{}: {} at {}</title></circle>",
                    x(point.0),
                    y(point.1),
                    escaped(&series.name),
                    super::table::figure(point.1),
                    super::table::figure(point.0)
                );
            }
        }
        let legend: String = self.series.iter().map(legend_entry).collect();
        format!(
            "<figure><figcaption>{title}</figcaption><p class=\"legend\">{legend}</p>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{marks}</svg></figure>\n",
            title = escaped(self.title)
        )
    }
}

fn legend_entry(series: &Series) -> String {
    let style = if series.dashed { "dashed" } else { "solid" };
    format!(
        "<span><i style=\"border-top:3px {style} {}\"></i> {}</span> ",
        COLOURS[series.colour % COLOURS.len()],
        escaped(&series.name)
    )
}

/// From zero, so that no difference looks larger than it is.
struct Axis {
    step: f64,
    end: f64,
}

impl Axis {
    /// Four to ten steps of 1, 2 or 5 times a power of ten.
    fn to(most: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let power = 10_f64.powf((most / 4.0).log10().floor());
        let step =
            [5.0, 2.0, 1.0].map(|n| n * power).into_iter().find(|step| most / step >= 4.0).unwrap_or(power);
        Self { step, end: (most / step).ceil() * step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (0..=(self.end / self.step).round() as usize).map(|idx| idx as f64 * self.step)
    }

    fn label(&self, tick: f64) -> String {
        let digits = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{tick:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps() {
        let check = |most: f64, expected: &[&str]| {
            let axis = Axis::to(most);
            let labels: Vec<String> = axis.ticks().map(|tick| axis.label(tick)).collect();
            assert_eq!(labels, expected, "{most}");
        };
        check(16.0, &["0", "2", "4", "6", "8", "10", "12", "14", "16"]);
        check(0.43, &["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        check(4100.0, &["0", "1000", "2000", "3000", "4000", "5000"]);
        check(0.0, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    #[test]
    fn names_are_escaped_and_nothing_is_no_plot() {
        let series = |points: &[(f64, f64)]| Series {
            name: "<a>".to_owned(),
            colour: 0,
            dashed: true,
            marked: true,
            points: points.to_vec(),
        };
        let plot = |points: &[(f64, f64)]| {
            Plot { title: "t", x_label: "x", y_label: "y", series: vec![series(points)] }.svg()
        };
        assert_eq!(plot(&[]), "");
        assert_eq!(plot(&[(1.0, 2.0), (1.0, 3.0)]), "");
        let svg = plot(&[(1.0, 2.0), (3.0, 4.0)]);
        assert!(svg.contains("&lt;a&gt;: 4.00 at 3.00") && !svg.contains("<a>"), "{svg}");
        assert!(svg.contains("stroke-dasharray"));
    }
}
