//! A plugin in C that breaks the rules of the interface: as far as a host can see that, it says so and goes on.
//!
//! Must not know: what no host can see; that stands in `docs/design.md`, "What a loaded plugin can break".

mod common;

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use memflow_core::{
    Error, MemoryView, PhysAddr, PhysicalMemory, Reason, Result, VirtAddr,
    error::{ErrorKind, StopCause},
    memory::{Outcome, Pause, PhysRead, PhysicalMemoryExt, RunState, ViewRead},
    os::{Os, ProcessInfo},
    plugin::{ConnectOptions, Connection, Inventory, TargetInfo, descriptor::PluginKind},
};

/// The plugin does what it was last asked for, so only one test may ask at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inventory() -> &'static Inventory {
    static INVENTORY: OnceLock<Inventory> = OnceLock::new();
    INVENTORY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/hostile.c");
        let hostile = common::compile(&source, "hostile.so", &["-shared", "-fPIC"]);
        let inventory = Inventory::builder().file(hostile).file(common::misbehaving()).build();
        assert!(inventory.rejected().is_empty(), "{:?}", inventory.rejected());
        inventory
    })
}

fn connect(how: &str) -> Result<Connection> {
    let spec = format!("hostile:x:how={how}").parse()?;
    Ok(inventory().connect(&spec, &ConnectOptions::default())?.connection)
}

fn memory(how: &str) -> Result<Arc<dyn PhysicalMemory>> {
    Ok(connect(how)?.memory)
}

fn os(how: &str) -> Result<Arc<dyn Os>> {
    let memory = inventory().connect(&"faulty:x".parse()?, &ConnectOptions::default())?.connection.memory;
    inventory().open_os(&format!("hostile-os:how={how}").parse()?, memory, &|_, _, _| ControlFlow::Continue(()))
}

fn targets(how: &str) -> Result<Vec<TargetInfo>> {
    connect(how)?;
    Ok(inventory().find(PluginKind::Connector, "hostile", None)?.targets()?.unwrap())
}

#[track_caller]
fn refused<T>(what: &str, result: Result<T>, why: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{what} was taken"));
    let text = error.to_string();
    assert!(text.starts_with("plugin hostile") && text.contains(why), "{what}: {text}");
    assert_eq!(error.kind(), ErrorKind::Contract, "{what}");
}

#[test]
fn tables_and_records_that_cannot_be_are_refused() {
    let _turn = turn();
    for (how, why) in [
        ("nothing_filled", "the table of its memory cannot be used"),
        ("table_misaligned", "the table of its memory cannot be used"),
        ("table_size_0", "the table of its memory cannot be used"),
        ("table_size_odd", "the table of its memory cannot be used"),
        ("table_size_huge", "the table of its memory cannot be used"),
        ("table_major", "the table of its memory cannot be used"),
        ("table_short", "function `read` is missing"),
        ("drop_null", "function `drop` is missing"),
        ("read_null", "function `read` is missing"),
        ("info_function_null", "function `info` is missing"),
        ("info_null", "its memory does not say what it holds"),
        ("info_size", "its memory does not say what it holds"),
        ("runs_null", "runs of its memory: 2 at address 0x0, where no such list can be"),
        ("runs_many", "runs of its memory: 9223372036854775808 at address"),
        ("runs_misaligned", "runs of its memory: 2 at address"),
        ("runs_overlap", "overlap"),
        ("runs_leave", "leaves the address space"),
        ("vcpus_many", "registers of its vCPUs: 9223372036854775808 at address"),
        ("arm_vcpus_many", "registers of its vCPUs: 9223372036854775808 at address"),
        ("arm_vcpus_null", "registers of its vCPUs: 1 at address 0x0, where no such list can be"),
        ("control_without_pause", "function `pause` is missing"),
        ("control_without_state", "function `run_state` is missing"),
        ("control_cut", "function `resume` is missing"),
        ("vmcoreinfo_huge", "bytes of its VMCOREINFO: 4611686018427387904 at address"),
        ("map_many", "regions of its direct map: 9223372036854775808 at address"),
        ("map_null", "cannot lie where it says"),
        ("map_len", "cannot lie where it says"),
        ("map_wraps", "cannot lie where it says"),
        ("map_hole", "its direct map does not hold all of"),
        ("map_lost", "the place where it notes lost bytes is misaligned"),
    ] {
        refused(how, memory(how), why);
    }
    memory("well").unwrap().read_into(PhysAddr::new(5), &mut [0; 9]).unwrap();
    memory("map").unwrap().read_into(PhysAddr::new(5), &mut [0; 9]).unwrap();
}

#[test]
fn failures_that_say_nothing_are_failures() {
    let _turn = turn();
    refused("fails_silently", memory("fails_silently"), "failed with status 77 and did not say why");
    refused("fails_with_nothing", memory("fails_with_nothing"), "failed with something that is no failure record");
    let often = memory("fails_often").err().unwrap();
    assert_eq!((often.kind(), often.to_string().as_str()), (ErrorKind::Other, "\u{fffd} last"));
    let long = memory("fails_at_length").err().unwrap().to_string();
    assert_eq!(long, "(a text of 4611686018427387904 bytes; at most 16777216 are taken)");
}

#[test]
fn texts_that_cannot_be_are_told_as_such() {
    let _turn = turn();
    assert_eq!(&*memory("name_not_utf8").unwrap().metadata().name, "\u{fffd}\u{fffd} machine");
    assert!(memory("name_huge").unwrap().metadata().name.starts_with("(a text of 4611686018427387904 bytes"));
    assert!(os("system_huge").unwrap().kernel().system.starts_with("(a text of 4611686018427387904 bytes"));
    assert_eq!(connect("notes").unwrap().notes.len(), 1000);
    assert!(
        connect("alternative").err().unwrap().to_string().contains("plugin hostile 0.1.0: arguments that it proposes")
    );
}

#[test]
fn outcomes_that_cannot_be_are_never_taken_for_done() {
    let _turn = turn();
    let read = |how: &str| {
        let memory = memory(how).unwrap();
        let (mut one, mut other) = ([0; 8], [0; 8]);
        let mut ops = [PhysRead::new(PhysAddr::new(0), &mut one), PhysRead::new(PhysAddr::new(8), &mut other)];
        let result = memory.read_batch(&mut ops);
        (result, ops.map(|op| op.outcome))
    };
    let unanswered =
        |result: &Result<()>| matches!(result, Err(Error::Unanswered { who, .. }) if who == "plugin hostile 0.1.0");
    let (result, outcomes) = read("outcome_status");
    assert_eq!(result.unwrap_err().reason(), Some(Reason::Unknown { status: 0xdead_beef }));
    assert!(outcomes.iter().all(|outcome| !outcome.is_done()));
    let (result, outcomes) = read("outcome_offset");
    assert!(result.is_err() && outcomes.iter().all(|outcome| matches!(outcome, Outcome::Failed { offset: 7, .. })));
    let (result, _) = read("outcome_level");
    let reason = result.unwrap_err().reason();
    assert!(
        matches!(reason, Some(Reason::NotMapped(stop)) if stop.cause == StopCause::Unknown && stop.level == u8::MAX)
    );
    let (result, outcomes) = read("fewer");
    assert!(unanswered(&result) && outcomes == [Outcome::Done, Outcome::NotAttempted]);
    let (result, outcomes) = read("call_status");
    assert!(unanswered(&result) && outcomes == [Outcome::NotAttempted; 2]);
    // The operations are the callee's to write to; only outcomes are read back.
    let (result, _) = read("moved");
    result.unwrap();
}

#[test]
fn populated_runs_that_cannot_be_hide_nothing() {
    let _turn = turn();
    for how in ["populated_bad", "populated_overlap", "populated_endless"] {
        let memory = memory(how).unwrap();
        assert_eq!(memory.populated_runs(), memory.metadata().runs, "{how}");
    }
}

#[test]
fn what_was_left_out_is_taken_only_if_it_can_be() {
    let _turn = turn();
    assert_eq!(memory("well").unwrap().excluded_runs().total_bytes(), 0x1000);
    for how in ["excluded_bad", "excluded_overlap", "excluded_endless"] {
        assert!(memory(how).unwrap().excluded_runs().is_empty(), "{how}");
    }
}

#[test]
fn states_that_cannot_be_are_never_taken_for_running_or_paused() {
    let _turn = turn();
    let state = |how| memory(how).unwrap().control().unwrap().run_state();
    assert_eq!(state("well").unwrap(), RunState::Running);
    refused("state_unknown", state("state_unknown"), "state 3 of its target is neither 1 (running) nor 2 (paused)");
    refused("state_unset", state("state_unset"), "state 0 of its target is neither");
    refused("state_status", state("state_status"), "failed with status 5 and did not say why");
    assert!(memory("control_absent").unwrap().control().is_none());
    for how in ["change_silently", "change_nothing"] {
        let memory = memory(how).unwrap();
        refused(how, memory.control().unwrap().pause(), "failed with s");
        refused(how, memory.control().unwrap().resume(), "failed with s");
        refused(how, Pause::new(memory), "failed with s");
    }
}

#[test]
fn registers_that_cannot_be_are_errors() {
    let _turn = turn();
    let registers = |how| memory(how).unwrap().control().unwrap().registers();
    assert_eq!(registers("well").unwrap().len(), 1);
    refused("vcpu_null", registers("vcpu_null"), "something that is no record is in a list");
    refused("vcpu_of_no_kind", registers("vcpu_of_no_kind"), "of no kind that this build knows");
    refused("vcpu_misaligned", registers("vcpu_misaligned"), "of no kind that this build knows");
    refused("vcpu_short", registers("vcpu_short"), "of no kind that this build knows");
    refused("vcpus_endless", registers("vcpus_endless"), "a list goes on past 65536 entries");
    let absent = registers("registers_absent").unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::Unsupported);
    assert!(absent.to_string().contains("plugin hostile 0.1.0 does not tell them"), "{absent}");
}

#[test]
fn lists_have_an_end_and_records_a_size() {
    let _turn = turn();
    refused("targets_null", targets("targets_null"), "something that is no record is in a list");
    refused("targets_size", targets("targets_size"), "something that is no record is in a list");
    refused("targets_problem", targets("targets_problem"), "failed with something that is no failure record");
    refused("targets_endless", targets("targets_endless"), "a list goes on past 2097152 entries");
    let text = targets("targets_text").unwrap();
    assert!(text.len() == 1 && text[0].name.starts_with("(a text of 4611686018427387904 bytes"));
    let modules = os("well").unwrap().modules().unwrap();
    refused("modules", modules.into_complete(), "the users of a module: 9223372036854775808 at address");
}

#[test]
fn systems_and_processes_that_cannot_be_are_refused() {
    let _turn = turn();
    for (how, why) in [
        ("os_table", "the table of its operating system cannot be used"),
        ("kernel_null", "does not say what kernel it has"),
        ("answer_null", "function `resolve` is missing"),
        ("evidence_many", "the evidence of a kernel: 9223372036854775808 at address"),
    ] {
        refused(how, os(how), why);
    }
    assert!(os("space_null").err().unwrap().to_string().contains("plugin hostile-os 0.1.0 without an address space"));
    assert!(os("architecture").err().unwrap().to_string().contains("`abacus`"));
    for (how, why) in [
        ("process_table", "the table of a process cannot be used"),
        ("process_null", "a process does not say what it is"),
        ("process_state", "state 1234 of a process"),
        ("process_other", "process 99 was opened in place of 7"),
        ("view_null", "the table of a view cannot be used"),
        ("pointer_size", "a view has pointers of 3 bytes, expected 4 or 8"),
    ] {
        let os = os(how).unwrap();
        refused(how, os.open(&ProcessInfo::new(VirtAddr::new(0), 7, "x")), why);
    }
    let os = os("well").unwrap();
    refused("threads", os.open_pid(7).unwrap().threads(), "function `threads` is missing");
    refused("symbol_at", os.symbol_at(VirtAddr::new(0x5000)), "said to be 0x3 bytes before");
    // A view that answers nothing.
    let process = os.open_pid(7).unwrap();
    let mut byte = [0];
    refused("view", process.read_batch(&mut [ViewRead::new(VirtAddr::new(0), &mut byte)]), "without an outcome");
}

#[test]
fn answers_that_mean_nothing_map_nothing() {
    let _turn = turn();
    for how in ["well", "answer_page"] {
        let os = os(how).unwrap();
        let mut bytes = [0; 8];
        let error = os.kernel_view().read_batch(&mut [ViewRead::new(VirtAddr::new(0x10), &mut bytes)]).unwrap_err();
        assert!(error.is_not_mapped() || error.is_not_in_image(), "{how}: {error}");
    }
}
