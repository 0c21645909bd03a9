//! The figures as a plot.
//!
//! Owns: how it looks. Must not know: what the figures are about.
//! Keeps: one line for each case, one mark for each contender, a logarithmic scale.

use std::path::Path;

use plotters::prelude::*;

use crate::{
    Error, Result,
    report::{Figure, Row},
};

/// Draws nanoseconds per item to an SVG file.
///
/// # Errors
/// The file cannot be written.
pub fn plot(rows: &[Row], path: &Path) -> Result<()> {
    let marks = || {
        rows.iter()
            .flat_map(|row| row.figures.iter().map(move |figure| (row, figure)))
            .filter(|(_, figure)| !figure.ns.is_empty())
    };
    let mut names: Vec<&str> = rows.iter().map(|row| row.case.as_str()).collect();
    names.dedup();
    let mut contenders: Vec<&str> = Vec::new();
    for (_, figure) in marks() {
        if !contenders.contains(&figure.contender.as_str()) {
            contenders.push(&figure.contender);
        }
    }
    let drawing = |error: &dyn std::fmt::Display| -> Error { format!("{}: {error}", path.display()).into() };
    let height = 140 + 18 * names.len() as u32;
    let root = SVGBackend::new(path, (1200, height)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| drawing(&error))?;
    let ns = |figure: &Figure| figure.median().max(0.01);
    let (low, high) =
        marks().map(|(_, figure)| ns(figure)).fold((f64::MAX, 0.0_f64), |(low, high), ns| (low.min(ns), high.max(ns)));
    let lines = -1.0..names.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption("nanoseconds per item, less is better", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(330)
        .build_cartesian_2d((low / 1.5..high * 1.5).log_scale(), lines)
        .map_err(|error| drawing(&error))?;
    let label = |line: &f64| {
        let index = names.len() as f64 - 1.0 - line;
        let whole = index.fract().abs() < 1e-6 && index >= 0.0;
        if whole { names.get(index as usize).copied().unwrap_or_default().to_owned() } else { String::new() }
    };
    chart
        .configure_mesh()
        .y_labels(names.len() + 2)
        .y_label_formatter(&label)
        .x_label_formatter(&|ns| format!("{ns:.1}"))
        .disable_y_mesh()
        .draw()
        .map_err(|error| drawing(&error))?;
    for (number, contender) in contenders.iter().enumerate() {
        let colour = Palette99::pick(number).to_rgba();
        let marks = marks().filter(|(_, figure)| figure.contender == *contender).filter_map(|(row, figure)| {
            let line = names.len() as f64 - 1.0 - names.iter().position(|name| *name == row.case)? as f64;
            Some(Circle::new((ns(figure), line), 4, colour.filled()))
        });
        chart
            .draw_series(marks)
            .map_err(|error| drawing(&error))?
            .label(*contender)
            .legend(move |at| Circle::new(at, 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .position(SeriesLabelPosition::LowerRight)
        .draw()
        .map_err(|error| drawing(&error))?;
    root.present().map_err(|error| drawing(&error))
}
