//! The report's plots, as SVG: regret over schedules, regret on each of our schedules, one run second by second.
//!
//! Colours are told apart by colour-blind readers as well (Okabe and Ito's), and Galo's line is the thick one. What lies
//! beyond an axis stands at its edge, with its number or the axis saying so.

use std::path::{Path, PathBuf};

use galo_engine::PROCESSORS_LEN_MAX;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Fees;
use super::run::{PolicyKind, Run};
use super::schedule::{Condition, Schedule};

/// A plot that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {what}")]
pub struct PlotError {
    file: PathBuf,
    what: String,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Axes<'a> = Cartesian2d<RangedCoordf64, RangedCoordf64>;

const TEXT: &str = "Helvetica, Arial, sans-serif";
const GREY: RGBColor = RGBColor(110, 110, 110);
/// A processor's, by its number.
const PROCESSOR_COLOURS: [RGBColor; PROCESSORS_LEN_MAX] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(0, 0, 0),
    RGBColor(240, 228, 66),
];
const FAILING_COLOUR: RGBColor = RGBColor(213, 94, 0);
const SLOW_COLOUR: RGBColor = RGBColor(240, 200, 90);
const FINE_COLOUR: RGBColor = RGBColor(190, 225, 200);

fn colour(kind: PolicyKind) -> RGBColor {
    match kind {
        PolicyKind::Galo => RGBColor(0, 0, 0),
        PolicyKind::DefaultOnly => RGBColor(0, 114, 178),
        PolicyKind::Breakers => RGBColor(213, 94, 0),
        PolicyKind::HalfOpenTries => RGBColor(0, 158, 115),
        PolicyKind::ShortTimeout => RGBColor(204, 121, 167),
        PolicyKind::FiveTries => RGBColor(230, 159, 0),
        PolicyKind::LatencyComparison => RGBColor(86, 180, 233),
    }
}

fn draw(file: &Path, size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> Drawn) -> Result<(), PlotError> {
    let failed = |error: &dyn std::fmt::Display| PlotError { file: file.to_owned(), what: error.to_string() };
    let area = SVGBackend::new(file, size).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    paint(&area).map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

/// A count of things, on an axis.
#[expect(clippy::cast_precision_loss, reason = "pixels")]
fn float(count: u64) -> f64 {
    count as f64
}

/// The share of schedules whose regret stays below a value, a curve for each policy.
///
/// # Errors
/// If the file cannot be written.
pub fn regret_curves(file: &Path, fees: &[Fees], runs: &[Run]) -> Result<(), PlotError> {
    const REGRET_MAX: f64 = 12.0;
    draw(file, (1_000, 460), |area| {
        let panels = area.split_evenly((1, fees.len()));
        for (number, (panel, fees)) in panels.iter().zip(fees).enumerate() {
            let mut chart = ChartBuilder::on(panel)
                .caption(format!("fees of {}", fees.name()), (TEXT, 16))
                .margin(12)
                .x_label_area_size(42)
                .y_label_area_size(48)
                .build_cartesian_2d(0.0..REGRET_MAX, 0.0..100.0)?;
            chart
                .configure_mesh()
                .x_desc("regret, %")
                .y_desc("schedules with at most that, %")
                .x_labels(7)
                .y_labels(6)
                .x_label_formatter(&|value| format!("{value:.0}"))
                .y_label_formatter(&|value| format!("{value:.0}"))
                .label_style((TEXT, 13))
                .axis_desc_style((TEXT, 14))
                .light_line_style(WHITE)
                .bold_line_style(GREY.mix(0.2))
                .draw()?;
            for kind in PolicyKind::ALL {
                let style = colour(*kind).stroke_width(if *kind == PolicyKind::Galo { 4 } else { 2 });
                let points = curve(runs, *fees, *kind, REGRET_MAX);
                let series = chart.draw_series(LineSeries::new(points, style))?;
                series
                    .label(kind.name())
                    .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style));
            }
            // Once more, on top of the others.
            let points = curve(runs, *fees, PolicyKind::Galo, REGRET_MAX);
            chart.draw_series(LineSeries::new(points, colour(PolicyKind::Galo).stroke_width(4)))?;
            if number == 0 {
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::LowerRight)
                    .legend_area_size(28)
                    .margin(10)
                    .label_font((TEXT, 13))
                    .background_style(WHITE.mix(0.9))
                    .border_style(GREY.mix(0.4))
                    .draw()?;
            }
        }
        Ok(())
    })
}

/// A step up at each schedule's regret; schedules beyond the axis are missing at its end.
fn curve(runs: &[Run], fees: Fees, kind: PolicyKind, regret_max: f64) -> Vec<(f64, f64)> {
    let of_kind = runs.iter().filter(|run| run.fees == fees && run.policy == kind);
    let mut regrets: Vec<f64> = of_kind.map(|run| run.regret() * 100.0).collect();
    regrets.sort_by(f64::total_cmp);
    let count = float(regrets.len() as u64);
    let mut points = vec![(0.0, 0.0)];
    let mut share = 0.0;
    for (index, regret) in regrets.iter().enumerate().filter(|(_, regret)| **regret <= regret_max) {
        points.push((*regret, share));
        share = float(index as u64 + 1) / count * 100.0;
        points.push((*regret, share));
    }
    points.push((regret_max, share));
    points
}

/// Each policy's regret on each of our schedules, a row for each schedule.
///
/// # Errors
/// If the file cannot be written.
pub fn schedules(file: &Path, fees: &[Fees], runs: &[Run]) -> Result<(), PlotError> {
    const REGRET_MAX: f64 = 16.0;
    let mut names: Vec<&str> = runs.iter().map(|run| run.schedule.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    // The first name on top.
    names.reverse();
    let height = 110 + 56 * u32::try_from(names.len()).unwrap_or(100);
    draw(file, (1_000, height), |area| {
        let (head, body) = area.split_vertically(34);
        for (number, kind) in (0..).zip(PolicyKind::ALL) {
            let x = 16 + 140 * number;
            head.draw(&Circle::new((x, 18), 5, colour(*kind).filled()))?;
            head.draw(&Text::new(kind.name(), (x + 11, 11), (TEXT, 14)))?;
        }
        // The names stand beside the first panel alone.
        let (left, right) = body.split_horizontally(580);
        for (number, (panel, fees)) in [left, right].iter().zip(fees).enumerate() {
            let name_width = if number == 0 { 170 } else { 12 };
            let mut chart = ChartBuilder::on(panel)
                .caption(format!("fees of {}", fees.name()), (TEXT, 15))
                .margin(8)
                .x_label_area_size(40)
                .y_label_area_size(name_width)
                .build_cartesian_2d(-0.3..REGRET_MAX, -0.5..float(names.len() as u64) - 0.5)?;
            chart
                .configure_mesh()
                .x_desc(format!("regret, % (what is above stands at {REGRET_MAX})"))
                .x_labels(9)
                .y_labels(0)
                .disable_y_mesh()
                .x_label_formatter(&|value| format!("{value:.0}"))
                .label_style((TEXT, 13))
                .axis_desc_style((TEXT, 14))
                .light_line_style(WHITE)
                .bold_line_style(GREY.mix(0.2))
                .draw()?;
            for (row, name) in (0..).zip(&names) {
                let y = float(row);
                chart.draw_series([PathElement::new(vec![(-0.3, y), (REGRET_MAX, y)], GREY.mix(0.25))])?;
                if number == 0 {
                    let (_, pixel_y) = chart.backend_coord(&(0.0, y));
                    let (_, top) = panel.get_base_pixel();
                    let style = TextStyle::from((TEXT, 14)).pos(Pos::new(HPos::Right, VPos::Center));
                    panel.draw(&Text::new((*name).to_owned(), (name_width - 2, pixel_y - top), style))?;
                }
                // One above the other, so that none hides another; Galo on top.
                for (place, kind) in (0..).zip(PolicyKind::ALL) {
                    let found = runs
                        .iter()
                        .find(|run| run.fees == *fees && run.policy == *kind && run.schedule == **name);
                    let Some(run) = found else { continue };
                    let at = ((run.regret() * 100.0).min(REGRET_MAX), y + 0.33 - 0.11 * float(place));
                    let size = if *kind == PolicyKind::Galo { 5 } else { 4 };
                    chart.draw_series([Circle::new(at, size, colour(*kind).filled())])?;
                }
            }
        }
        Ok(())
    })
}

/// One run, second by second: how the processors do, what each processes, what waits.
///
/// # Errors
/// If the file cannot be written.
pub fn timeline(file: &Path, schedule: &Schedule, run: &Run) -> Result<(), PlotError> {
    let strips_height = 16 + 38 * i32::try_from(schedule.names().count()).unwrap_or(8);
    draw(file, (1_000, 498 + strips_height.unsigned_abs()), |area| {
        let length = float(run.seconds.len() as u64);
        let (strips, rest) = area.split_vertically(strips_height);
        let (rates, queue) = rest.split_vertically(300);
        conditions(&strips, schedule, length)?;

        let posted_max = run.seconds.iter().map(|second| second.posted).max().unwrap_or(0);
        let top = float(posted_max) * 1.5;
        let mut chart = ChartBuilder::on(&rates)
            .margin_left(8)
            .margin_right(16)
            .margin_top(6)
            .x_label_area_size(42)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..length, 0.0..top)?;
        mesh(&mut chart, "payments a second")?;
        let line = |figure: &dyn Fn(usize) -> u64| -> Vec<(f64, f64)> {
            (0..run.seconds.len())
                .map(|second| (float(second as u64) + 0.5, float(figure(second)).min(top)))
                .collect()
        };
        let posted = ("posted".to_owned(), GREY, 1, line(&|second| run.seconds[second].posted));
        let processed = schedule.processors().zip(schedule.names()).map(|(processor, name)| {
            let points = line(&|second| run.seconds[second].processed[processor.index()]);
            (format!("processed by {name}"), PROCESSOR_COLOURS[processor.index()], 3, points)
        });
        for (name, colour, width, points) in std::iter::once(posted).chain(processed) {
            let style = colour.stroke_width(width);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style));
        }
        // A peak beyond the axis is named once, beside it.
        let peaks = run.seconds.iter().map(|second| second.processed.into_iter().max().unwrap_or(0));
        let peak = peaks.enumerate().max_by_key(|(_, peak)| *peak).filter(|(_, peak)| float(*peak) > top);
        if let Some((second, peak)) = peak {
            let at = (float(second as u64) + 3.0, top * 0.97);
            chart.draw_series([Text::new(format!("up to {peak} a second"), at, (TEXT, 13))])?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .legend_area_size(28)
            .margin(10)
            .label_font((TEXT, 13))
            .background_style(WHITE.mix(0.9))
            .border_style(GREY.mix(0.4))
            .draw()?;

        let waiting_max = run.seconds.iter().map(|second| second.waiting).max().unwrap_or(0).max(10);
        let mut chart = ChartBuilder::on(&queue)
            .margin_left(8)
            .margin_right(16)
            .margin_top(6)
            .x_label_area_size(42)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..length, 0.0..float(waiting_max) * 1.1)?;
        mesh(&mut chart, "waiting")?;
        let waiting = run.seconds.iter().enumerate();
        let points = waiting.map(|(second, figures)| (float(second as u64) + 1.0, float(figures.waiting)));
        chart.draw_series(LineSeries::new(points, RGBColor(0, 0, 0).stroke_width(2)))?;
        Ok(())
    })
}

fn mesh(chart: &mut ChartContext<'_, SVGBackend<'_>, Axes<'_>>, name: &str) -> Drawn {
    chart
        .configure_mesh()
        .y_desc(name)
        .x_desc("seconds")
        .x_labels(13)
        .y_labels(6)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style((TEXT, 13))
        .axis_desc_style((TEXT, 14))
        .light_line_style(WHITE)
        .bold_line_style(GREY.mix(0.2))
        .draw()?;
    Ok(())
}

/// A bar for each processor: what the schedule does to it.
fn conditions(area: &Area<'_>, schedule: &Schedule, length: f64) -> Drawn {
    let (left, right) = (70.0, 1_000.0 - 16.0);
    let x_of = |seconds: f64| left + (right - left) * (seconds / length).min(1.0);
    #[expect(clippy::cast_possible_truncation, reason = "pixels")]
    let pixel = |seconds: f64| x_of(seconds).round() as i32;
    for ((row, name), processor) in (0..).zip(schedule.names()).zip(schedule.processors()) {
        let y = 14 + 38 * row;
        let style = TextStyle::from((TEXT, 14)).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(name, (62, y + 14), style))?;
        let mut spans: Vec<(f64, Condition)> = vec![(0.0, Condition::default())];
        for stage in &schedule.stages {
            let condition = stage.conditions[processor.index()];
            if spans.last().is_some_and(|last| last.1 != condition) {
                spans.push((float(stage.at_s.ms) / 1_000.0, condition));
            }
        }
        for (index, (from, condition)) in spans.iter().enumerate() {
            let to = spans.get(index + 1).map_or(length, |next| next.0);
            let fill = if condition.failing {
                FAILING_COLOUR
            } else if condition.delay_ms > 0 || condition.error_percent > 0 {
                SLOW_COLOUR
            } else {
                FINE_COLOUR
            };
            area.draw(&Rectangle::new([(pixel(*from), y), (pixel(to), y + 28)], fill.filled()))?;
            let said = describe(condition);
            let style = TextStyle::from((TEXT, 13)).pos(Pos::new(HPos::Center, VPos::Center));
            area.draw(&Text::new(said, (i32::midpoint(pixel(*from), pixel(to)), y + 14), style))?;
        }
    }
    Ok(())
}

fn describe(condition: &Condition) -> String {
    let mut words = Vec::new();
    if condition.failing {
        words.push("fails".to_owned());
    }
    if condition.delay_ms > 0 {
        words.push(format!("{} ms", condition.delay_ms));
    }
    if condition.error_percent > 0 {
        words.push(format!("{} % errors", condition.error_percent));
    }
    words.join(", ")
}
