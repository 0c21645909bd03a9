//! `memflow plugins`: what plugins there are, what one takes, and why a file is not taken.
//!
//! Owns: the tables and the JSON forms. Must not know: how plugins are found.

use clap::{Args, Subcommand};
use memflow_core::plugin::{
    ABI, Inventory, PlaceState, Plugin,
    args::ArgSpec,
    descriptor::{Accepts, HOST_TARGET, PluginKind},
};
use serde::Serialize;

use crate::{
    failure::{Failure, Outcome, Status},
    output::{Align, Io, Table, escape},
    plugins::{self, PluginArgs},
};

/// Arguments of `memflow plugins`.
#[derive(Args, Debug)]
#[command(after_help = "\
Plugins are looked for in the folders of MEMFLOW_PLUGIN_PATH, in ~/.local/lib/memflow, /usr/local/lib/memflow and /usr/lib/memflow, and \
beside the program, as libmemflow_NAME.so. Nothing of a file runs before it is used. Of several plugins of one name the newest is taken.

JSON: {\"plugins\": [{kind, name, version, abi, target, description, origin, accepts, args, help}], \"rejected\": [{path, reason}], \
\"places\": [{path, state}]}.")]
pub(crate) struct PluginsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    plugins: PluginArgs,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the plugins that can be used
    List,
    /// Show what a plugin takes
    Show {
        /// Its name, or NAME@VERSION
        name: String,
        /// Also list the targets that it could open now, which loads it
        #[arg(long)]
        targets: bool,
    },
    /// Say where plugins were looked for, and why files were not taken
    Doctor,
}

#[derive(Serialize)]
struct Document<'a> {
    plugins: Vec<Record<'a>>,
    rejected: Vec<RejectedRecord>,
    places: Vec<PlaceRecord>,
}

#[derive(Serialize)]
struct Record<'a> {
    kind: &'static str,
    name: &'a str,
    version: String,
    abi: String,
    target: &'a str,
    description: &'a str,
    origin: String,
    accepts: Vec<&'static str>,
    args: Vec<ArgRecord<'a>>,
    help: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    targets: Option<Vec<TargetRecord>>,
}

#[derive(Serialize)]
struct ArgRecord<'a> {
    name: &'a str,
    kind: String,
    required: bool,
    default: &'a str,
    help: &'a str,
}

#[derive(Serialize)]
struct TargetRecord {
    name: String,
    description: String,
}

#[derive(Serialize)]
struct RejectedRecord {
    path: String,
    reason: String,
}

#[derive(Serialize)]
struct PlaceRecord {
    path: String,
    state: String,
}

/// Looks for plugins and shows them.
pub(crate) fn run(args: &PluginsArgs, io: &mut Io<'_>) -> Outcome {
    let inventory = plugins::look(&args.plugins).map_err(Failure::Target)?;
    match &args.action {
        None | Some(Action::List) => list(&inventory, io),
        Some(Action::Show { name, targets }) => show(&inventory, name, *targets, io),
        Some(Action::Doctor) => doctor(&inventory, io),
    }
}

fn document(inventory: &Inventory) -> Document<'_> {
    Document {
        plugins: inventory.plugins().iter().map(|plugin| record(plugin)).collect(),
        rejected: inventory
            .rejected()
            .iter()
            .map(|rejected| RejectedRecord {
                path: rejected.path.display().to_string(),
                reason: rejected.reason.clone(),
            })
            .collect(),
        places: inventory
            .places()
            .iter()
            .map(|place| PlaceRecord { path: place.path.display().to_string(), state: state(&place.state) })
            .collect(),
    }
}

fn record(plugin: &Plugin) -> Record<'_> {
    let descriptor = plugin.descriptor();
    Record {
        kind: descriptor.kind.as_str(),
        name: &descriptor.name,
        version: descriptor.version.to_string(),
        abi: descriptor.abi.to_string(),
        target: &descriptor.target,
        description: &descriptor.description,
        origin: plugin.origin().to_string(),
        accepts: descriptor.accepts.iter().copied().map(Accepts::as_str).collect(),
        args: plugin.args().iter().map(argument).collect(),
        help: &descriptor.help,
        targets: None,
    }
}

fn argument(spec: &ArgSpec) -> ArgRecord<'_> {
    ArgRecord {
        name: &spec.name,
        kind: spec.kind.to_string(),
        required: spec.required,
        default: &spec.default,
        help: &spec.help,
    }
}

fn state(state: &PlaceState) -> String {
    match state {
        PlaceState::Searched { files: 1 } => "1 file".to_owned(),
        PlaceState::Searched { files } => format!("{files} files"),
        PlaceState::Absent => "not there".to_owned(),
        PlaceState::Unreadable(why) => format!("cannot be searched: {why}"),
        _ => "unknown".to_owned(),
    }
}

fn list(inventory: &Inventory, io: &mut Io<'_>) -> Outcome {
    if io.json {
        io.document(&document(inventory))?;
        return Ok(Status::Complete);
    }
    let columns = ["KIND", "NAME", "VERSION", "FROM", "DESCRIPTION"];
    let mut table = Table::new(&columns.map(|column| (column, Align::Left)));
    for plugin in inventory.plugins() {
        let descriptor = plugin.descriptor();
        let from = plugin.origin().to_string();
        let cells = [
            descriptor.kind.as_str(),
            &descriptor.name,
            &descriptor.version.to_string(),
            &from,
            &descriptor.description,
        ];
        table.row(cells.map(|cell| escape(cell).to_string()));
    }
    io.table(&table)?;
    let rejected = inventory.rejected().len();
    if rejected > 0 {
        io.note(format_args!("{rejected} files or plugins were not taken; `memflow plugins doctor` says why"));
    }
    Ok(Status::Complete)
}

fn show(inventory: &Inventory, name: &str, targets: bool, io: &mut Io<'_>) -> Outcome {
    let (name, version) = match name.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (name, None),
    };
    let found = inventory
        .find(PluginKind::Connector, name, version)
        .or_else(|_| inventory.find(PluginKind::Os, name, version))
        .map_err(|_| {
            let there: Vec<&str> = inventory.plugins().iter().map(|plugin| &*plugin.descriptor().name).collect();
            Failure::Missing(format!("no plugin is called {name}; there are: {}", there.join(", ")))
        })?;
    let targets = if targets { found.targets()? } else { None };
    if io.json {
        let targets = targets.map(|targets| {
            targets
                .into_iter()
                .map(|target| TargetRecord { name: target.name, description: target.description })
                .collect()
        });
        io.document(&Record { targets, ..record(found) })?;
        return Ok(Status::Complete);
    }
    let descriptor = found.descriptor();
    let mut table = Table::without_header([Align::Left, Align::Left]);
    let mut row = |name: &str, text: &str| table.row([name.to_owned(), escape(text).to_string()]);
    row("name", &descriptor.name);
    row("kind", &descriptor.kind.to_string());
    row("version", &descriptor.version.to_string());
    row("description", &descriptor.description);
    row("from", &found.origin().to_string());
    row("ABI", &format!("{}, this build takes {}.x (it is {ABI})", descriptor.abi, ABI.major));
    row("target", &descriptor.target);
    for accepts in &descriptor.accepts {
        row("accepts", accepts.as_str());
    }
    for spec in found.args() {
        let must = if spec.required { " (required)" } else { "" };
        row("argument", &format!("{}{must}  {}", spec.usage(), spec.help));
    }
    for target in targets.iter().flatten() {
        row("open now", &format!("{}  {}", target.name, target.description));
    }
    io.table(&table)?;
    for line in descriptor.help.lines() {
        io.line(escape(line))?;
    }
    Ok(Status::Complete)
}

fn doctor(inventory: &Inventory, io: &mut Io<'_>) -> Outcome {
    let healthy = inventory.rejected().is_empty();
    let status = if healthy { Status::Complete } else { Status::Incomplete };
    if io.json {
        io.document(&document(inventory))?;
        return Ok(status);
    }
    io.line(format_args!("ABI {ABI}, {HOST_TARGET}"))?;
    for place in inventory.places() {
        io.line(format_args!("searched  {}: {}", escape(&place.path.display().to_string()), state(&place.state)))?;
    }
    for plugin in inventory.plugins() {
        let descriptor = plugin.descriptor();
        let (kind, name, version) = (descriptor.kind, escape(&descriptor.name), &descriptor.version);
        io.line(format_args!("good      {kind} {name} {version}, {}", escape(&plugin.origin().to_string())))?;
    }
    for rejected in inventory.rejected() {
        io.line(format_args!("rejected  {}", escape(&rejected.to_string())))?;
    }
    Ok(status)
}
