//! Each function of the plugin interface in turn panics, fails or does half of its work: the host gets an error that says whose, and
//! goes on.
//!
//! Keeps: the functions are those that the interface's own description lists, so that a new one without a case fails.

mod common;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use memflow_abi::STRUCTURES;
use memflow_core::{
    Error, MemoryView, PhysAddr, PhysicalMemory, Reason, Result, VirtAddr,
    error::ErrorKind,
    memory::{Control, PhysRead, PhysWrite, PhysicalMemoryExt, ViewRead, ViewWrite},
    os::{Os, Process},
    plugin::{ConnectOptions, Inventory, descriptor::PluginKind},
};

/// What errors about defects begin with: the plugin that has the function.
fn who(structure: &str, function: &str) -> &'static str {
    match (structure, function) {
        ("MemoryTable", _) | (_, "open_connector" | "targets") => "plugin faulty 0.1.0",
        _ => "plugin faulty-os 0.1.0",
    }
}

fn inventory() -> &'static Inventory {
    static INVENTORY: OnceLock<Inventory> = OnceLock::new();
    INVENTORY.get_or_init(|| common::inventory(&common::misbehaving()))
}

fn memory(args: &str) -> Result<Arc<dyn PhysicalMemory>> {
    let spec = format!("faulty::{args}").parse()?;
    Ok(inventory().connect(&spec, &ConnectOptions::default())?.connection.memory)
}

fn os(args: &str) -> Result<Arc<dyn Os>> {
    inventory().open_os(&format!("faulty-os:{args}").parse()?, memory("fault=none")?, &|_, _, _| {
        std::ops::ControlFlow::Continue(())
    })
}

fn process(args: &str) -> Result<Box<dyn Process>> {
    os(args)?.open_pid(7)
}

/// What is opened last says what listing targets does.
fn targets(args: &str) -> Result<()> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    memory(args)?;
    let plugin = inventory().find(PluginKind::Connector, "faulty", None)?;
    let listed = plugin.targets();
    memory("fault=none,at=targets")?;
    assert_eq!(listed?.unwrap().len(), 2);
    Ok(())
}

/// Two reads, of which none may count as done when the whole failed.
fn read(args: &str) -> Result<()> {
    let memory = memory(args)?;
    let (mut one, mut other) = ([0; 16], [0; 16]);
    let mut ops = [PhysRead::new(PhysAddr::new(0x3000), &mut one), PhysRead::new(PhysAddr::new(0x3010), &mut other)];
    let result = memory.read_batch(&mut ops);
    assert_eq!(result.is_ok(), ops.iter().all(|op| op.outcome.is_done()), "{ops:?}");
    result
}

fn write(args: &str) -> Result<()> {
    let memory = memory(args)?;
    let mut ops = [PhysWrite::new(PhysAddr::new(0x3000), &[1; 16]), PhysWrite::new(PhysAddr::new(0x3010), &[2; 16])];
    let result = memory.write_batch(&mut ops);
    assert_eq!(result.is_ok(), ops.iter().all(|op| op.outcome.is_done()), "{ops:?}");
    result
}

fn view_read(args: &str) -> Result<()> {
    let process = process(args)?;
    let (mut one, mut other) = ([0; 16], [0; 16]);
    let mut ops = [ViewRead::new(VirtAddr::new(0), &mut one), ViewRead::new(VirtAddr::new(0x10), &mut other)];
    let result = process.read_batch(&mut ops);
    assert_eq!(result.is_ok(), ops.iter().all(|op| op.outcome.is_done()), "{ops:?}");
    result
}

fn view_write(args: &str) -> Result<()> {
    let process = process(args)?;
    let mut ops = [ViewWrite::new(VirtAddr::new(0), &[1; 16]), ViewWrite::new(VirtAddr::new(0x10), &[2; 16])];
    let result = process.write_batch(&mut ops);
    assert_eq!(result.is_ok(), ops.iter().all(|op| op.outcome.is_done()), "{ops:?}");
    result
}

fn resolve(args: &str) -> Result<()> {
    let os = os(args)?;
    let mut bytes = [0; 16];
    os.kernel_view().read_batch(&mut [ViewRead::new(VirtAddr::new(0x10), &mut bytes)])?;
    assert_eq!(bytes, [1; 16], "16 bytes at 0x3010");
    Ok(())
}

fn populated_runs(args: &str) -> Result<()> {
    let memory = memory(args)?;
    // Whatever happens, nothing that holds bytes may look empty.
    assert_eq!(memory.populated_runs(), memory.metadata().runs);
    Ok(())
}

fn excluded_runs(args: &str) -> Result<()> {
    let memory = memory(args)?;
    assert!(memory.excluded_runs().is_empty());
    Ok(())
}

fn controlled(args: &str, ask: fn(&dyn Control) -> Result<()>) -> Result<()> {
    ask(memory(args)?.control().unwrap())
}

/// How a function can fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// It runs no code of a plugin's author.
    NoCode,
    /// It has a place for an error.
    Fallible,
    /// It has none, so what it answers is asked for when the handle is made.
    AskedAtOpen,
    /// Each operation of a batch has its outcome.
    Batch,
    /// It has no place for an error, and what it does anyway is right.
    Absorbed,
}

/// Every function of the interface: in which structure, how it can fail, and something that calls it.
type Case = (&'static str, &'static str, Way, fn(&str) -> Result<()>);

const CASES: &[Case] = &[
    ("PluginEntry", "attach", Way::NoCode, |args| memory(args).map(drop)),
    ("PluginEntry", "set_log_level", Way::NoCode, |args| memory(args).map(drop)),
    ("PluginEntry", "open_connector", Way::Fallible, |args| memory(args).map(drop)),
    ("PluginEntry", "open_os", Way::Fallible, |args| os(args).map(drop)),
    ("PluginEntry", "targets", Way::Fallible, targets),
    ("MemoryTable", "clone", Way::NoCode, |args| memory(args).map(|memory| drop(memory.clone()))),
    ("MemoryTable", "drop", Way::Absorbed, |args| memory(args).map(drop)),
    ("MemoryTable", "read", Way::Batch, read),
    ("MemoryTable", "write", Way::Batch, write),
    ("MemoryTable", "info", Way::AskedAtOpen, |args| memory(args).map(drop)),
    ("MemoryTable", "facts", Way::AskedAtOpen, |args| memory(args).map(drop)),
    ("MemoryTable", "direct_map", Way::AskedAtOpen, |args| memory(args).map(drop)),
    ("MemoryTable", "populated_runs", Way::Absorbed, populated_runs),
    ("MemoryTable", "run_state", Way::Fallible, |args| controlled(args, |control| control.run_state().map(drop))),
    ("MemoryTable", "pause", Way::Fallible, |args| controlled(args, |control| control.pause())),
    ("MemoryTable", "resume", Way::Fallible, |args| controlled(args, |control| control.resume())),
    ("MemoryTable", "registers", Way::Fallible, |args| controlled(args, |control| control.registers().map(drop))),
    ("MemoryTable", "excluded_runs", Way::Absorbed, excluded_runs),
    ("SoftFaultsTable", "clone", Way::NoCode, resolve),
    ("SoftFaultsTable", "drop", Way::Absorbed, resolve),
    ("SoftFaultsTable", "resolve", Way::Batch, resolve),
    ("ViewTable", "clone", Way::NoCode, view_read),
    ("ViewTable", "drop", Way::Absorbed, view_read),
    ("ViewTable", "read", Way::Batch, view_read),
    ("ViewTable", "write", Way::Batch, view_write),
    ("ViewTable", "info", Way::AskedAtOpen, view_read),
    ("OsTable", "clone", Way::NoCode, |args| os(args).map(drop)),
    ("OsTable", "drop", Way::Absorbed, |args| os(args).map(drop)),
    ("OsTable", "kernel", Way::AskedAtOpen, |args| os(args).map(drop)),
    ("OsTable", "kernel_space", Way::AskedAtOpen, |args| os(args).map(drop)),
    ("OsTable", "memory", Way::AskedAtOpen, |args| os(args).map(drop)),
    ("OsTable", "processes", Way::Fallible, |args| os(args)?.processes()?.into_complete().map(drop)),
    ("OsTable", "open_process", Way::Fallible, |args| process(args).map(drop)),
    ("OsTable", "modules", Way::Fallible, |args| os(args)?.modules()?.into_complete().map(drop)),
    ("OsTable", "symbols", Way::Fallible, |args| os(args)?.symbols()?.into_complete().map(drop)),
    ("OsTable", "symbols_named", Way::Fallible, |args| os(args)?.symbols_named("start").map(drop)),
    ("OsTable", "symbol_at", Way::Fallible, |args| os(args)?.symbol_at(VirtAddr::new(0x1010)).map(drop)),
    ("OsTable", "kernel_log", Way::Fallible, |args| os(args)?.kernel_log()?.into_complete().map(drop)),
    ("ProcessTable", "drop", Way::Absorbed, |args| process(args).map(drop)),
    ("ProcessTable", "record", Way::AskedAtOpen, |args| process(args).map(drop)),
    ("ProcessTable", "space", Way::AskedAtOpen, |args| process(args).map(drop)),
    ("ProcessTable", "walk", Way::AskedAtOpen, |args| process(args).map(drop)),
    ("ProcessTable", "view", Way::AskedAtOpen, view_read),
    ("ProcessTable", "executable", Way::Fallible, |args| process(args)?.executable().map(drop)),
    ("ProcessTable", "command_line", Way::Fallible, |args| process(args)?.command_line().map(drop)),
    ("ProcessTable", "environment", Way::Fallible, |args| process(args)?.environment().map(drop)),
    ("ProcessTable", "memory_map", Way::Fallible, |args| process(args)?.memory_map()?.into_complete().map(drop)),
    ("ProcessTable", "threads", Way::Fallible, |args| process(args)?.threads()?.into_complete().map(drop)),
];

/// The name of a function among the places of misbehaviour.
fn place(structure: &str, function: &str) -> String {
    match structure {
        "PluginEntry" => function.to_owned(),
        "MemoryTable" => format!("memory.{function}"),
        "SoftFaultsTable" => format!("soft_faults.{function}"),
        // Making a view asks what it covers.
        "ProcessTable" if function == "view" => "view.info".to_owned(),
        "ViewTable" => format!("view.{function}"),
        "OsTable" => format!("os.{function}"),
        "ProcessTable" => format!("process.{function}"),
        other => panic!("no place in {other}"),
    }
}

/// Handles that were opened before anything went wrong, and must stay good.
struct Bystander {
    memory: Arc<dyn PhysicalMemory>,
    os: Arc<dyn Os>,
    process: Box<dyn Process>,
}

impl Bystander {
    fn new() -> Self {
        let os = os("fault=none").unwrap();
        Self { memory: memory("fault=none").unwrap(), process: os.open_pid(7).unwrap(), os }
    }

    #[track_caller]
    fn is_well(&self) {
        let mut bytes = [0; 16];
        self.memory.read_into(PhysAddr::new(0x4560), &mut bytes).unwrap();
        assert_eq!(bytes, [0x56; 16]);
        assert_eq!(self.os.processes().unwrap().into_complete().unwrap().len(), 1);
        self.process.read_batch(&mut [ViewRead::new(VirtAddr::new(9), &mut bytes)]).unwrap();
        assert_eq!(bytes, [0x5a; 16]);
    }
}

#[test]
fn every_function_of_the_interface_has_a_case() {
    let described: BTreeSet<(&str, &str)> = STRUCTURES
        .iter()
        .filter(|structure| structure.name.ends_with("Table") || structure.name.ends_with("Entry"))
        .flat_map(|structure| structure.fields.iter().map(|field| (structure.name, field.name)))
        .filter(|(_, field)| !["header", "descriptor", "layout"].contains(field))
        .collect();
    let cases: BTreeSet<(&str, &str)> = CASES.iter().map(|(structure, function, ..)| (*structure, *function)).collect();
    assert_eq!(described, cases);
    assert_eq!(cases.len(), CASES.len());
}

#[test]
fn nothing_goes_wrong_unasked() {
    for (structure, function, _, call) in CASES {
        call("fault=none").unwrap_or_else(|error| panic!("{structure}.{function}: {error}"));
    }
}

#[test]
fn panic_in_any_function_is_an_error_that_says_whose_and_hurts_nobody_else() {
    let bystander = Bystander::new();
    for (structure, function, way, call) in CASES {
        for fault in ["panic", "payload", "bomb"] {
            let what = format!("{fault} in {structure}.{function}");
            let result = call(&format!("fault={fault},at={}", place(structure, function)));
            bystander.is_well();
            match (way, result) {
                (Way::NoCode | Way::Absorbed, Ok(())) => {}
                (Way::Fallible | Way::AskedAtOpen, Err(error)) => {
                    let why = if fault == "panic" { "as asked, in " } else { "it did not say why" };
                    let text = error.to_string();
                    assert!(
                        text.starts_with(&format!(
                            "{}: the code of the plugin panicked: {why}",
                            who(structure, function)
                        )),
                        "{what}: {text}"
                    );
                    assert_eq!(error.kind(), ErrorKind::Panic, "{what}");
                }
                (Way::Batch, Err(error)) => {
                    let text = error.to_string();
                    assert!(
                        text.contains("faulty") && text.contains("the code of the plugin panicked"),
                        "{what}: {text}"
                    );
                    assert_eq!(error.reason(), Some(Reason::Panicked), "{what}");
                }
                (_, result) => panic!("{what}: {result:?}"),
            }
        }
    }
}

#[test]
fn error_of_every_kind_comes_out_of_every_function_that_can_fail() {
    let kinds = [
        ("Access", ErrorKind::Access),
        ("Range", ErrorKind::Range),
        ("Contract", ErrorKind::Contract),
        ("Format", ErrorKind::Format),
        ("File", ErrorKind::File),
        ("Io", ErrorKind::Io),
        ("Overlap", ErrorKind::Overlap),
        ("NotRecognised", ErrorKind::NotRecognised),
        ("Unsupported", ErrorKind::Unsupported),
        ("NotFound", ErrorKind::NotFound),
        ("Argument", ErrorKind::Argument),
        ("Corrupt", ErrorKind::Corrupt),
        ("Limit", ErrorKind::Limit),
        ("Cycle", ErrorKind::Cycle),
        ("Cancelled", ErrorKind::Cancelled),
    ];
    let bystander = Bystander::new();
    for (structure, function, way, call) in CASES {
        for (name, kind) in kinds {
            let what = format!("{name} from {structure}.{function}");
            let result = call(&format!("fault=error,kind={name},at={}", place(structure, function)));
            match (way, result) {
                (Way::Fallible, Err(error)) => {
                    assert_eq!(error.kind(), kind, "{what}: {error}");
                    let whose = kind == ErrorKind::Contract;
                    assert_eq!(error.to_string().starts_with(who(structure, function)), whose, "{what}: {error}");
                }
                // The error of a batch is in its operations; these say nothing, or that all went well.
                (Way::Batch, Err(Error::Unanswered { who: found, .. })) => {
                    assert_eq!(found, who(structure, function), "{what}");
                }
                // The plugin has no place for an error there either.
                (Way::Batch, Ok(())) if *function == "resolve" => {}
                (Way::NoCode | Way::Absorbed | Way::AskedAtOpen, Ok(())) => {}
                (_, result) => panic!("{what}: {result:?}"),
            }
        }
        bystander.is_well();
    }
}

#[test]
fn batch_that_is_not_all_answered_is_never_taken_for_done() {
    let bystander = Bystander::new();
    for (structure, function, way, call) in CASES {
        if *way != Way::Batch || *function == "resolve" {
            continue;
        }
        let at = place(structure, function);
        for (fault, expected) in [("fewer", 1), ("contradiction", 0)] {
            match call(&format!("fault={fault},at={at}")) {
                Err(Error::Unanswered { who: found, index }) => {
                    assert_eq!((found.as_str(), index), (who(structure, function), expected), "{at}");
                }
                result => panic!("{fault} in {at}: {result:?}"),
            }
        }
    }
    bystander.is_well();
}
