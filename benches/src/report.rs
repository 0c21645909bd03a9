//! The figures of all cases: taking them, joining those of several runs, JSON and the table.
//!
//! Owns: [`Row`], [`Figure`], the table. Must not know: what a case does, what the goals are.
//! Keeps: figures of a run are medians over rounds, those of several runs medians over runs; a ratio is to ours in the same rounds.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    cases::{Case, OURS},
    goals,
    measure::{self, Contender},
    peer::{Mistakes, Part, Peer},
};

/// A peer whose first run took longer is timed by that run alone.
const SLOW: Duration = Duration::from_millis(400);

/// What a contender is in a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What ours is compared with.
    Reference,
    /// The library.
    Ours,
    /// The library or the reference in another way.
    Other,
    /// Another project.
    Peer,
}

/// How one contender did in one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Its name.
    pub contender: String,
    /// What it is.
    pub role: Role,
    /// How many items a run of it did, if not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
    /// Nanoseconds per item, one for each run; empty when it did not take part.
    pub ns: Vec<f64>,
    /// Its time divided by ours, one for each run.
    pub ratio: Vec<f64>,
    /// Of a peer: what was wrong with its answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistakes: Option<Mistakes>,
    /// In which way it differed from the others, or why it did not take part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Figure {
    /// One without figures.
    pub fn new(contender: impl Into<String>, role: Role) -> Self {
        let (ns, ratio) = (Vec::new(), Vec::new());
        Self { contender: contender.into(), role, items: None, ns, ratio, mistakes: None, note: None }
    }

    /// Nanoseconds per item; NaN when there are none.
    pub fn median(&self) -> f64 {
        if self.ns.is_empty() { f64::NAN } else { measure::median(self.ns.clone()) }
    }

    /// Our time divided by its.
    pub fn inverse_ratio(&self) -> Option<f64> {
        (!self.ratio.is_empty()).then(|| 1.0 / measure::median(self.ratio.clone()))
    }
}

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub case: String,
    /// What an item is.
    pub per: String,
    /// How many items a run has.
    pub items: usize,
    /// Everyone who took part.
    pub figures: Vec<Figure>,
}

impl Row {
    /// Times a case: ours and references in turns, then each peer in turns with ours.
    pub fn take(mut case: Case<'_>, budget: Duration) -> Self {
        let ours = case.contenders.iter().position(|contender| contender.name() == OURS);
        let mut all: Vec<&mut Contender<'_>> = case.contenders.iter_mut().collect();
        let timings = measure::compare(case.items, budget, &mut all);
        let against = ours.map(|ours| &timings[ours]);
        let mut figures = Vec::new();
        for (index, timing) in timings.iter().enumerate() {
            let role = match index {
                _ if Some(index) == ours => Role::Ours,
                _ if index < case.references => Role::Reference,
                _ => Role::Other,
            };
            let ratio = against.map(|ours| timing.ratio_to(ours)).into_iter().collect();
            figures.push(Figure { ns: vec![timing.ns()], ratio, ..Figure::new(&timing.name, role) });
        }
        let our_ns = against.map(measure::Timing::ns);
        for peer in case.peers {
            let ours = ours.map(|ours| &mut case.contenders[ours]);
            figures.push(of_peer(peer, case.items, budget / 4, ours.zip(our_ns)));
        }
        Self { case: case.name, per: case.per.to_owned(), items: case.items, figures }
    }

    /// The library's figure.
    pub fn ours(&self) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.role == Role::Ours)
    }

    /// The reference that took least.
    pub fn best_reference(&self) -> Option<&Figure> {
        let references = self.figures.iter().filter(|figure| figure.role == Role::Reference);
        references.min_by(|one, other| one.median().total_cmp(&other.median()))
    }
}

fn of_peer<'a>(peer: Peer<'a>, items: usize, budget: Duration, ours: Option<(&mut Contender<'a>, f64)>) -> Figure {
    let figure = Figure::new(peer.name, Role::Peer);
    let (mut contender, first, mistakes, note) = match peer.part {
        Part::Absent(why) => return Figure { note: Some(why), ..figure },
        Part::Runs { contender, first, mistakes, note } => (contender, first, mistakes, note),
    };
    let (ns, ratio) = match ours {
        Some((ours, _)) if first < SLOW => {
            let timings = measure::compare(items, budget, &mut [ours, &mut contender]);
            (timings[1].ns(), timings[1].ratio_to(&timings[0]))
        }
        _ => {
            let ns = first.as_secs_f64() * 1e9 / contender.items().unwrap_or(items) as f64;
            (ns, ours.map_or(f64::NAN, |(_, ours)| ns / ours))
        }
    };
    let items = contender.items().filter(|count| *count != items);
    Figure { items, ns: vec![ns], ratio: vec![ratio], mistakes: Some(mistakes), note, ..figure }
}

/// Joins the rows of another run to those of the first.
///
/// # Errors
/// They are not about the same cases.
pub fn join(rows: &mut Vec<Row>, run: Vec<Row>) -> Result<()> {
    if rows.is_empty() {
        *rows = run;
        return Ok(());
    }
    if rows.len() != run.len() {
        return Err(format!("one run had {} cases, another {}", rows.len(), run.len()).into());
    }
    for (row, other) in rows.iter_mut().zip(run) {
        if row.case != other.case || row.figures.len() != other.figures.len() {
            return Err(format!("{} in one run, {} in another", row.case, other.case).into());
        }
        for (figure, mut other) in row.figures.iter_mut().zip(other.figures) {
            figure.ns.append(&mut other.ns);
            figure.ratio.append(&mut other.ratio);
        }
    }
    Ok(())
}

/// The table: one line for each case.
pub fn table(rows: &[Row]) -> Table {
    let mut peers: Vec<&str> = Vec::new();
    for figure in rows.iter().flat_map(|row| &row.figures).filter(|figure| figure.role == Role::Peer) {
        if !peers.contains(&figure.contender.as_str()) {
            peers.push(&figure.contender);
        }
    }
    let runs = rows.iter().flat_map(|row| &row.figures).map(|figure| figure.ns.len()).max().unwrap_or(0);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header = vec!["CASE", "PER", "OURS", "BARE", "OURS/BARE"];
    if runs > 1 {
        header.push("SPREAD");
    }
    header.extend(peers.iter().flat_map(|peer| [*peer, "/OURS"]));
    header.push("GOAL");
    table.set_header(header);
    for row in rows {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let count = row.per == "calls";
        let number = |ns: f64| if count { format!("{ns}") } else { nanoseconds(ns) };
        let ours = row.ours().map_or(String::new(), |figure| number(figure.median()));
        let best = row.best_reference();
        let mut cells = vec![Cell::new(&row.case), Cell::new(&row.per), right(ours)];
        cells.push(right(best.map_or(String::new(), |figure| number(figure.median()) + lanes(&figure.contender))));
        let ratio = best.and_then(Figure::inverse_ratio);
        cells.push(right(ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))));
        if runs > 1 {
            cells.push(right(best.map_or(String::new(), spread)));
        }
        for peer in &peers {
            match row.figures.iter().find(|figure| figure.contender == *peer) {
                None => cells.extend([Cell::new(""), Cell::new("")]),
                Some(figure) => cells.extend(peer_cells(figure).map(right)),
            }
        }
        cells.push(Cell::new(goal(row)));
        table.add_row(cells);
    }
    table
}

/// How a reference that walks several addresses side by side is marked.
fn lanes(contender: &str) -> &'static str {
    match contender {
        "bare, 16 at a time" => " (16)",
        "bare, 32 at a time" => " (32)",
        _ => "",
    }
}

/// Least and largest of our times divided by a reference's.
fn spread(reference: &Figure) -> String {
    let ratios = || reference.ratio.iter().map(|ratio| 1.0 / ratio);
    let (least, most) = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
    format!("{least:.2}-{most:.2}")
}

fn peer_cells(figure: &Figure) -> [String; 2] {
    if figure.ns.is_empty() {
        return [figure.note.clone().unwrap_or_default(), String::new()];
    }
    let mut text = nanoseconds(figure.median());
    if let Some(note) = &figure.note {
        text = format!("{text} {note}");
    }
    if let Some(mistakes) = figure.mistakes.filter(|mistakes| !mistakes.is_none()) {
        text = format!("{text} !{}/{}", mistakes.wrong + mistakes.missing, mistakes.of);
    }
    let ratio = measure::median(figure.ratio.clone());
    let times = if ratio.is_nan() { String::new() } else { format!("{}x", significant(ratio)) };
    [text, times]
}

/// Nanoseconds, or a larger unit from a thousand of the smaller one on.
fn nanoseconds(ns: f64) -> String {
    match ns {
        _ if ns.is_nan() => String::new(),
        _ if ns < 1e4 => significant(ns),
        _ if ns < 1e6 => format!("{} µs", significant(ns / 1e3)),
        _ if ns < 1e9 => format!("{} ms", significant(ns / 1e6)),
        _ => format!("{} s", significant(ns / 1e9)),
    }
}

/// Three digits or what stands before the point.
fn significant(value: f64) -> String {
    match value {
        _ if value < 10.0 => format!("{value:.2}"),
        _ if value < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn goal(row: &Row) -> String {
    let verdicts = goals::judge(row);
    let missed: Vec<&str> =
        verdicts.iter().filter(|verdict| !verdict.met).map(|verdict| verdict.text.as_str()).collect();
    match (verdicts.is_empty(), missed.is_empty()) {
        (true, _) => String::new(),
        (_, true) => "met".to_owned(),
        _ => format!("missed: {}", missed.join("; ")),
    }
}

/// What the table has no room for: sums of the goals, and whose answers are wrong.
pub fn summary(rows: &[Row]) -> Vec<String> {
    let verdicts: Vec<_> = rows.iter().flat_map(goals::judge).collect();
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    let mut lines = vec![format!("goals: {met} of {} met", verdicts.len())];
    for row in rows {
        for figure in &row.figures {
            let Some(mistakes) = figure.mistakes.filter(|mistakes| !mistakes.is_none()) else { continue };
            lines.push(format!(
                "{} in {}: {} answers wrong, {} missing, of {}",
                figure.contender, row.case, mistakes.wrong, mistakes.missing, mistakes.of
            ));
        }
    }
    lines
}

/// The rows as JSON, with the verdict on each.
///
/// # Errors
/// None that a row could cause.
pub fn json(rows: &[Row]) -> Result<String> {
    #[derive(Serialize)]
    struct Judged<'a> {
        #[serde(flatten)]
        row: &'a Row,
        goals: Vec<serde_json::Value>,
    }
    let judged: Vec<Judged<'_>> = rows
        .iter()
        .map(|row| {
            let goal = |verdict: goals::Verdict| serde_json::json!({ "met": verdict.met, "text": verdict.text });
            Judged { row, goals: goals::judge(row).into_iter().map(goal).collect() }
        })
        .collect();
    serde_json::to_string_pretty(&judged).map(|text| text + "\n").map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ours: f64, peer: f64) -> Vec<Row> {
        let mut reference = Figure::new("bare", Role::Reference);
        (reference.ns, reference.ratio) = (vec![2.0], vec![2.0 / ours]);
        let mut figure = Figure::new("memflow", Role::Ours);
        (figure.ns, figure.ratio) = (vec![ours], vec![1.0]);
        let mut other = Figure::new("memflow 0.2.4", Role::Peer);
        (other.ns, other.ratio) = (vec![peer], vec![peer / ours]);
        other.mistakes = Some(Mistakes { wrong: 1, missing: 2, of: 9 });
        let mut absent = Figure::new("memf-core 0.2.6", Role::Peer);
        absent.note = Some("no such call".to_owned());
        let figures = vec![reference, figure, other, absent];
        vec![Row { case: "translate/x-real/random/16".to_owned(), per: "address".to_owned(), items: 16, figures }]
    }

    #[test]
    fn runs_are_joined_to_medians_and_spread() {
        let mut all = Vec::new();
        for (ours, peer) in [(2.0, 300.0), (4.0, 100.0), (3.0, 12e6)] {
            join(&mut all, rows(ours, peer)).unwrap();
        }
        let text = table(&all).to_string();
        let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = "translate/x-real/random/16 address 3.00 2.00 1.50 1.00-2.00 300 !3/9 150x no such call missed: 1.50x bare, at most 1.10x";
        assert_eq!(line.join(" "), expected, "{text}");
        assert!(join(&mut all, Vec::new()).is_err());
    }

    #[test]
    fn wrong_answers_of_a_peer_are_printed() {
        let lines = summary(&rows(2.0, 300.0));
        assert_eq!(lines[0], "goals: 2 of 2 met");
        assert_eq!(lines[1], "memflow 0.2.4 in translate/x-real/random/16: 1 answers wrong, 2 missing, of 9");
        let json: serde_json::Value = serde_json::from_str(&json(&rows(2.0, 300.0)).unwrap()).unwrap();
        assert_eq!(json[0]["goals"][0]["met"], true);
        assert_eq!(json[0]["figures"][2]["mistakes"]["missing"], 2);
    }

    #[test]
    fn times_have_readable_units() {
        let texts: Vec<String> = [1.234, 56.78, 412.3, 12_345.0, 12.3e6, 2e9].map(nanoseconds).into();
        assert_eq!(texts, ["1.23", "56.8", "412", "12.3 µs", "12.3 ms", "2.00 s"]);
    }
}
