//! Drawings: latency by rarity for each rate, CPU per payment by process, and by what it goes into.
//!
//! The curve of a side is the median of its runs' curves, point by point. Latency is drawn on a logarithmic axis: a tail a
//! hundred times the median would leave nothing else to be seen.

#![allow(clippy::float_arithmetic, reason = "coordinates, no money")]

use std::path::{Path, PathBuf};

use plotters::prelude::*;

use crate::budget::{self, DRAWN};
use crate::report::{Group, Measured, PARTS, cpu_per_payment, groups, median, median_f64};
use crate::results::{CURVE_NINES, CURVE_STEPS, Results, Run};

const SIZE: (u32, u32) = (900, 480);
const FONT: &str = "sans-serif";

/// Colours that those can tell apart who see few colours (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Draws all that the results allow.
///
/// # Errors
/// If a file cannot be written.
pub fn draw(results: &Results, folder: &Path, name: &str) -> Result<Vec<PathBuf>, String> {
    let open_loop = groups(&results.runs);
    let mut rates: Vec<u32> = open_loop.iter().filter_map(|group| group.rate).collect();
    rates.dedup();
    let mut drawn = Vec::new();
    for rate in rates {
        let path = folder.join(format!("{name}-latency-{rate}.svg"));
        let sides: Vec<&Group<'_, Run>> = open_loop.iter().filter(|group| group.rate == Some(rate)).collect();
        latency(&path, rate, &sides).map_err(|error| format!("cannot draw {}: {error}", path.display()))?;
        drawn.push(path);
    }
    let mut rows: Vec<_> = open_loop.iter().map(cpu_row).collect();
    rows.extend(groups(&results.k6).iter().map(cpu_row));
    let budget: Vec<_> =
        results.budget.iter().flat_map(budget::bars).map(|(name, costs)| (name, costs.to_vec())).collect();
    let charts = [
        ("cpu", "CPU per payment, by the cgroups' own accounts", PARTS.map(|(name, _)| name).to_vec(), rows),
        ("budget", "Where a payment's CPU goes", DRAWN.map(|(name, _)| name).to_vec(), budget),
    ];
    for (chart, caption, parts, rows) in charts.iter().filter(|(.., rows)| !rows.is_empty()) {
        let path = folder.join(format!("{name}-{chart}.svg"));
        bars(&path, caption, parts, rows)
            .map_err(|error| format!("cannot draw {}: {error}", path.display()))?;
        drawn.push(path);
    }
    Ok(drawn)
}

fn curve(group: &Group<'_, Run>) -> Vec<(f64, f64)> {
    let points = (0..=CURVE_NINES * CURVE_STEPS).filter_map(|step| {
        let at = |index: usize| {
            median(group.runs.iter().filter_map(|run| run.outcome.latency.curve_us.get(index).copied()))
        };
        let value_us = at(usize::try_from(step).ok()?)?;
        Some((f64::from(step) / f64::from(CURVE_STEPS), value_us.max(1) as f64 / 1_000.0))
    });
    points.collect()
}

fn latency(path: &Path, rate: u32, sides: &[&Group<'_, Run>]) -> Result<(), Box<dyn std::error::Error>> {
    let curves: Vec<_> = sides.iter().map(|group| (group.side, curve(group))).collect();
    let values = || curves.iter().flat_map(|(_, points)| points.iter().map(|(_, value)| *value));
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.1, f64::max));
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Latency at {rate} payments/s, from the moment each was due"), (FONT, 20))
        .margin(12)
        // Half of the last label stands beyond the axis.
        .margin_right(28)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..f64::from(CURVE_NINES), (least.min(most) * 0.8..most * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("ms")
        .x_labels(6)
        .x_label_formatter(&|nines| percentile(*nines))
        .y_label_formatter(&|value| short(*value))
        .light_line_style(RGBColor(235, 235, 235))
        .draw()?;
    for ((side, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(*side)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 14))
        .draw()?;
    area.present()?;
    Ok(())
}

fn percentile(nines: f64) -> String {
    short(100.0 * (1.0 - 10_f64.powf(-nines)))
}

/// To five decimals, without those that say nothing.
fn short(value: f64) -> String {
    let text = format!("{value:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cpu_row<R: Measured>(group: &Group<'_, R>) -> (String, Vec<f64>) {
    let load = group.rate.map_or_else(|| "with k6".to_owned(), |rate| format!("at {rate}/s"));
    let cpu = |part| median_f64(group.runs.iter().map(|run| cpu_per_payment(*run, part)));
    (format!("{} {load}", group.side), PARTS.iter().map(|(_, part)| cpu(part)).collect())
}

/// A bar for each row, its parts one behind the other.
fn bars(
    path: &Path,
    caption: &str,
    parts: &[&str],
    rows: &[(String, Vec<f64>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let most = rows.iter().map(|(_, costs)| costs.iter().sum::<f64>()).fold(1.0, f64::max);
    let count = i32::try_from(rows.len())?;
    // Black is the last one's.
    let colours = COLOURS.iter().cycle().skip(1);
    // Seven pixels a letter are enough at these sizes; nothing here measures text.
    let width = |names: &mut dyn Iterator<Item = &str>| {
        u32::try_from(names.map(|name| 7 * name.chars().count()).max().unwrap_or(0))
    };
    let name_width = 20 + width(&mut rows.iter().map(|(name, _)| name.as_str()))?;
    let (legend_width, legend_height) =
        (60 + width(&mut parts.iter().copied())?, 30 + 20 * u32::try_from(parts.len())?);
    // The bars end where the legend begins.
    let bars_width = SIZE.0.saturating_sub(name_width + 24);
    let end = most * f64::from(bars_width) / f64::from(bars_width.saturating_sub(legend_width).max(1));
    let area = SVGBackend::new(path, (SIZE.0, 110 + legend_height.max(34 * u32::try_from(count)?)))
        .into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, (FONT, 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(name_width)
        .build_cartesian_2d(0.0..end, (0..count.max(2) - 1).into_segmented())?;
    chart
        .configure_mesh()
        .x_desc("µs")
        .disable_y_mesh()
        .y_labels(rows.len())
        .y_label_formatter(&|segment| match segment {
            // The first row on top.
            SegmentValue::CenterOf(row) => usize::try_from(count - 1 - row)
                .ok()
                .and_then(|row| rows.get(row))
                .map(|(name, _)| name.clone())
                .unwrap_or_default(),
            _ => String::new(),
        })
        .light_line_style(RGBColor(235, 235, 235))
        .draw()?;
    for (index, (name, colour)) in parts.iter().zip(colours).enumerate() {
        let bars = rows.iter().zip((0..count).rev()).map(|((_, costs), row)| {
            let before: f64 = costs[..index].iter().sum();
            let corners =
                [(before, SegmentValue::Exact(row)), (before + costs[index], SegmentValue::Exact(row + 1))];
            let mut bar = Rectangle::new(corners, colour.filled());
            bar.set_margin(5, 5, 0, 0);
            bar
        });
        chart
            .draw_series(bars)?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 14))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_are_percentiles() {
        let labels: Vec<String> = (0..=5).map(|nines| percentile(f64::from(nines))).collect();
        assert_eq!(labels, ["0", "90", "99", "99.9", "99.99", "99.999"]);
    }

    #[test]
    fn labels_are_as_short_as_they_can_be() {
        assert_eq!([0.1 + 0.2, 0.05, 1.0, 20.0].map(short), ["0.3", "0.05", "1", "20"]);
    }
}
