//! The picture: ping round trips over time while a sync starts, one line per design.

use std::fmt::Write;

use crate::measure::Design;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 46.0;
const PLOT_WIDTH: f64 = 540.0;
const PLOT_HEIGHT: f64 = 340.0;
/// The scale of round trips, logarithmic, in milliseconds.
const LOWEST_MS: f64 = 30.0;
const HIGHEST_MS: f64 = 5_000.0;
const TICKS_MS: [f64; 7] = [30.0, 50.0, 100.0, 300.0, 1_000.0, 3_000.0, 5_000.0];

/// One design's line.
pub struct Line {
    /// Whose.
    pub design: Design,
    /// Seconds since bulk began, and milliseconds.
    pub trace: Vec<(f64, f64)>,
}

/// Draws the lines over `from..=to` seconds.
pub fn svg(title: &str, lines: &[Line], from: f64, to: f64) -> String {
    let x = |seconds: f64| LEFT + (seconds - from) / (to - from) * PLOT_WIDTH;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"14\" fill=\"#222222\">{title}</text>\n"
    );
    let bottom = TOP + PLOT_HEIGHT;
    for tick in TICKS_MS {
        let level = y(tick);
        line(
            &mut svg,
            (LEFT, level),
            (LEFT + PLOT_WIDTH, level),
            "#e2e2e2",
        );
        let label = format!("{tick:.0} ms");
        text(
            &mut svg,
            (LEFT - 8.0, level + 4.0),
            "end",
            "#444444",
            &label,
        );
    }
    for second in from.ceil() as i64..=to.floor() as i64 {
        let at = x(second as f64);
        line(&mut svg, (at, bottom), (at, bottom + 5.0), "#888888");
        text(
            &mut svg,
            (at, bottom + 20.0),
            "middle",
            "#444444",
            &format!("{second} s"),
        );
    }
    line(&mut svg, (x(0.0), TOP), (x(0.0), bottom), "#888888");
    text(
        &mut svg,
        (x(0.0) + 6.0, TOP + 14.0),
        "start",
        "#444444",
        "the sync starts",
    );
    // Ours last, on top.
    for (index, drawn) in lines.iter().enumerate().rev() {
        let mut points = String::new();
        for (seconds, ms) in &drawn.trace {
            if (from..=to).contains(seconds) {
                write!(points, "{:.1},{:.1} ", x(*seconds), y(*ms)).expect("a string takes all");
            }
        }
        let colour = colour(drawn.design);
        let stroke = if index == 0 { 2.5 } else { 1.3 };
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{stroke}\" \
             stroke-linejoin=\"round\" points=\"{}\"/>",
            points.trim_end()
        )
        .expect("a string takes all");
        let legend = (LEFT + PLOT_WIDTH + 14.0, TOP + 20.0 + 22.0 * index as f64);
        line(
            &mut svg,
            (legend.0, legend.1 - 4.0),
            (legend.0 + 18.0, legend.1 - 4.0),
            colour,
        );
        text(
            &mut svg,
            (legend.0 + 24.0, legend.1),
            "start",
            "#222222",
            drawn.design.name(),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn y(ms: f64) -> f64 {
    let ms = ms.clamp(LOWEST_MS, HIGHEST_MS);
    let share = (ms / LOWEST_MS).ln() / (HIGHEST_MS / LOWEST_MS).ln();
    TOP + PLOT_HEIGHT * (1.0 - share)
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    )
    .expect("a string takes all");
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, colour: &str, text: &str) {
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>",
        at.0, at.1
    )
    .expect("a string takes all");
}

fn colour(design: Design) -> &'static str {
    match design {
        Design::Timed => "#0a7d33",
        Design::TcpFrames64Kib => "#c0392b",
        Design::TcpFrames946Kb => "#7b241c",
        Design::Yamux => "#d68910",
        Design::QuicPriority => "#2471a3",
        Design::QuicDefaults => "#7d3c98",
    }
}
