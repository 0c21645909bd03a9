//! `memflow targets`: what the connectors could open now.
//!
//! Owns: the table and the JSON form. Must not know: how a connector finds its targets.
//! Keeps: a connector that cannot say what there is makes the answer incomplete.

use clap::Args;
use memflow_core::plugin::descriptor::PluginKind;
use serde::Serialize;

use crate::{
    failure::{Failure, Outcome, Status},
    listed::{Listed, listed},
    output::{Align, Io, Table, escape, plural},
    plugins::{self, PluginArgs},
};

/// Arguments of `memflow targets`.
#[derive(Args, Debug)]
#[command(after_help = "\
A target is opened as CONNECTOR:NAME, or as NAME alone if no file is called so and no other connector has one of that name: `memflow ps \
NAME`. Only connectors that look for targets themselves are asked; files are not among them.

A connector that fails is named with the reason, and the exit code is 1.

JSON: {\"targets\": [{connector, name, description, target}], \"problems\": […]}; target is what to write for it.")]
pub(crate) struct TargetsArgs {
    /// Ask this connector alone
    #[arg(id = "only", short = 'c', long = "connector", value_name = "NAME")]
    only: Option<String>,
    #[command(flatten)]
    plugins: PluginArgs,
}

#[derive(Serialize)]
struct Document {
    targets: Vec<Record>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Record {
    connector: String,
    name: String,
    description: String,
    target: String,
}

/// Asks the connectors and prints what they have.
pub(crate) fn run(args: &TargetsArgs, io: &mut Io<'_>) -> Outcome {
    let inventory = plugins::inventory(&args.plugins).map_err(Failure::Target)?;
    if let Some(name) = &args.only {
        // The error names those that there are.
        inventory.find(PluginKind::Connector, name, None).map_err(Failure::Request)?;
    }
    let Listed { targets, problems, asked } = listed(&inventory, args.only.as_deref(), io);
    if let (Some(name), 0) = (&args.only, asked) {
        return Err(Failure::Missing(format!(
            "connector {name} does not look for targets; it opens what it is told to"
        )));
    }
    let mut records: Vec<Record> = targets
        .into_iter()
        .map(|found| Record {
            target: found.spec.to_string(),
            connector: found.spec.name().to_owned(),
            name: found.info.name,
            description: found.info.description,
        })
        .collect();
    records.sort_by(|one, other| (&one.connector, &one.name).cmp(&(&other.connector, &other.name)));
    for problem in &problems {
        io.warn(format_args!("the targets are incomplete: {problem}"));
    }
    let status = if problems.is_empty() { Status::Complete } else { Status::Incomplete };
    if io.json {
        io.document(&Document { targets: records, problems: problems.iter().map(ToString::to_string).collect() })?;
        return Ok(status);
    }
    let mut table = Table::new(&["CONNECTOR", "NAME", "DESCRIPTION"].map(|column| (column, Align::Left)));
    for record in &records {
        table.row([&record.connector, &record.name, &record.description].map(|cell| escape(cell).to_string()));
    }
    io.table(&table)?;
    if records.is_empty() && problems.is_empty() {
        io.note(format_args!("{} asked, which found nothing to open", plural(asked as u64, "connector")));
    }
    Ok(status)
}
