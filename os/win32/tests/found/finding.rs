//! The kernel, its build and its page tables, with no hint and with each one alone.

use std::sync::Arc;

use memflow_core::{
    PhysicalMemory,
    memory::{TargetFacts, X86Registers},
    os::{KernelInfo, Os},
};
use memflow_win32::{Arch, OffsetSources, Win32Options, Win32Os};
use memflow_windows_images::{Description, Exports, KdbgForm, Offsets, Paging, Windows, truth::Truth};

use crate::machine::{Image, UNKNOWN, description, dump_header, facts, kinds, machines};

fn arch(truth: &Truth) -> Arch {
    match truth.paging {
        Paging::Four => Arch::X64,
        Paging::Pae => Arch::X86Pae,
        Paging::Two => Arch::X86,
    }
}

fn architecture(truth: &Truth) -> &'static str {
    match truth.paging {
        Paging::Four => "x86-64 4-level",
        Paging::Pae => "x86 PAE",
        Paging::Two => "x86 32-bit",
    }
}

fn open(windows: &Arc<Windows>, facts: TargetFacts, options: &Win32Options<'_>) -> memflow_core::Result<Win32Os> {
    let memory: Arc<dyn PhysicalMemory> = Image::memory(windows.clone(), facts);
    Win32Os::open(memory, options)
}

/// Everything that is known of a kernel must be what was built; what is not.
fn wrong(windows: &Windows, os: &Win32Os) -> Option<String> {
    let truth = &windows.truth;
    let kernel = &truth.kernel;
    let info: &KernelInfo = os.kernel();
    let version = os.found().version;
    let modules = os.kernel_modules();
    let first = modules.as_ref().ok().and_then(|modules| modules.items.first());
    let listed: Vec<(u32, u64)> =
        truth.processes.iter().filter(|one| one.listed).map(|one| (one.pid, one.dtb)).collect();
    let processes = os.processes();
    let found = processes.as_ref().map(|found| {
        found.items.iter().map(|one| (one.pid, one.root.unwrap_or_default())).collect::<Vec<(u32, u64)>>()
    });
    let checks = [
        ("base", info.base.as_u64() == kernel.base),
        ("architecture", info.architecture == architecture(truth)),
        ("symbols", info.build_id == Some(format!("{}{:X}", kernel.guid, kernel.age))),
        (
            "version",
            (version.major, version.minor, version.build)
                == (kernel.version.major.into(), kernel.version.minor.into(), kernel.version.build.into()),
        ),
        ("root", os.kernel_space().root().as_u64() == truth.dtb),
        ("first module", first.map(|one| (one.info.base.as_u64(), one.info.size)) == Some((kernel.base, kernel.size))),
        ("problems", processes.as_ref().is_ok_and(|found| found.problems.is_empty())),
        ("processes", found.is_ok_and(|found| found == listed)),
    ];
    let wrong: Vec<&str> = checks.iter().filter(|(_, right)| !right).map(|(what, _)| *what).collect();
    let told = || format!("{}; {processes:?}\n  {}", wrong.join(", "), info.evidence.join("\n  "));
    (!wrong.is_empty()).then(told)
}

/// Opens a machine and tells what is wrong with what was found.
fn failure(what: &str, windows: &Arc<Windows>, facts: TargetFacts, options: &Win32Options<'_>) -> Option<String> {
    let wrong = match open(windows, facts, options) {
        Ok(os) => wrong(windows, &os)?,
        Err(error) => error.to_string(),
    };
    Some(format!("{what}: {wrong}"))
}

fn assert_none(failures: &[String]) {
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

/// A machine in words.
fn name(offsets: &Offsets, windows: &Windows) -> String {
    format!("{} {:?}", offsets.version, windows.truth.paging)
}

#[test]
fn every_kind_of_machine_is_found_without_a_hint() {
    for (offsets, windows) in machines() {
        let what = name(offsets, windows);
        let os = open(windows, TargetFacts::default(), &Win32Options::default()).unwrap();
        assert_eq!(wrong(windows, &os), None, "{what}");
    }
}

/// Options with one of them changed.
fn options<'a>(change: impl FnOnce(&mut Win32Options<'a>)) -> Win32Options<'a> {
    let mut options = Win32Options::default();
    change(&mut options);
    options
}

#[test]
fn every_kind_of_machine_is_found_with_each_argument_alone() {
    let mut failures = Vec::new();
    for (offsets, windows) in machines() {
        let truth = &windows.truth;
        let (base, end) = (truth.kernel.base, truth.kernel.base + truth.kernel.size);
        let last = truth.processes.iter().rfind(|process| process.exit_time.is_none()).unwrap();
        let arguments = [
            ("dtb", options(|one| one.root = Some(truth.dtb))),
            ("dtb of another process", options(|one| one.root = Some(last.dtb))),
            ("kernel", options(|one| one.kernel = Some(base))),
            ("kernel, its last byte", options(|one| one.kernel = Some(end - 1))),
            ("arch", options(|one| one.arch = Some(arch(truth)))),
        ];
        for (argument, options) in arguments {
            let what = format!("{}, {argument}", name(offsets, windows));
            failures.extend(failure(&what, windows, TargetFacts::default(), &options));
        }
    }
    assert_none(&failures);
}

#[test]
fn every_kind_of_machine_is_found_with_each_fact_alone() {
    type Choose = fn(&mut TargetFacts, &Windows, &mut X86Registers);
    let known: [(&str, Choose); 6] = [
        ("CR3", |_, windows, registers| registers.cr3 = Some(windows.truth.processors[0].cr3)),
        ("LSTAR", |_, windows, registers| registers.lstar = Some(windows.truth.processors[0].lstar)),
        ("IDTR", |_, windows, registers| registers.idtr_base = Some(windows.truth.processors[0].idt)),
        ("GS base", |_, windows, registers| registers.gs_base = Some(windows.truth.processors[0].kpcr)),
        ("all registers", |_, windows, registers| {
            let processor = &windows.truth.processors[0];
            registers.cr3 = Some(processor.cr3);
            registers.lstar = Some(processor.lstar);
            registers.idtr_base = Some(processor.idt);
            registers.gs_base = Some(processor.kpcr);
        }),
        ("a crash dump's header", |facts, windows, _| dump_header(facts, windows)),
    ];
    let mut failures = Vec::new();
    for (offsets, windows) in machines() {
        for (fact, choose) in known {
            let what = format!("{}, {fact}", name(offsets, windows));
            failures.extend(failure(&what, windows, facts(windows, choose), &Win32Options::default()));
        }
    }
    assert_none(&failures);
}

#[test]
fn thread_that_runs_is_found_by_gs_alone() {
    for (offsets, windows) in machines().iter().filter(|(offsets, _)| offsets.wide) {
        let built = &windows.truth.processors[0];
        let gs = facts(windows, |_, _, registers| registers.gs_base = Some(built.kpcr));
        let running = open(windows, gs, &Win32Options::default()).unwrap().running();
        let expected = (built.thread, built.process);
        let found = running.first().map(|one| (one.thread.as_u64(), one.process.as_u64()));
        assert_eq!(found, Some(expected), "{}", name(offsets, windows));
    }
}

/// Changes of a description, and what they are called.
type Change = (&'static str, fn(&mut Description));

const CHANGES: [Change; 9] = [
    ("without the low stub", |one| one.low_stub = false),
    ("with its top table anywhere, no low stub", |one| {
        one.low_stub = false;
        one.low_table = false;
    }),
    ("with large pages", |one| one.large_kernel = true),
    ("KDBG plain", |one| one.kdbg = KdbgForm::Plain),
    ("KDBG encoded", |one| one.kdbg = KdbgForm::Encoded),
    ("no KDBG", |one| one.kdbg = KdbgForm::Absent),
    ("no exports", |one| one.exports = Exports::Missing),
    ("neither exports nor KDBG", |one| {
        one.exports = Exports::Missing;
        one.kdbg = KdbgForm::Absent;
    }),
    ("full of clutter", |one| one.cluttered = true),
];

/// Builds each kind of machine with each change, and opens it.
fn with_changes(seed: u64, prepare: impl Fn(&mut Description), options: &Win32Options<'_>) {
    let mut failures = Vec::new();
    for (number, (architecture, offsets)) in (0..).zip(kinds()) {
        for (at, (change, apply)) in (0..).zip(CHANGES) {
            // The slot of the self-reference, the kernel's place and all others are drawn from it.
            let mut one = description(seed + number * 100 + at, architecture, offsets.clone());
            prepare(&mut one);
            apply(&mut one);
            let windows = Arc::new(one.build().unwrap());
            let what = format!("{}, {change}", name(&offsets, &windows));
            failures.extend(failure(&what, &windows, TargetFacts::default(), options));
        }
    }
    assert_none(&failures);
}

#[test]
fn every_kind_of_machine_is_found_whatever_is_missing_in_it() {
    with_changes(10_000, |_| {}, &Win32Options::default());
}

#[test]
fn build_that_no_table_knows_is_found_the_same() {
    with_changes(20_000, |one| one.guid = Some(UNKNOWN.to_owned()), &Win32Options::default());
}

#[test]
fn offsets_from_memory_alone_find_the_same() {
    let derived = options(|one| one.offsets = OffsetSources::Derived);
    with_changes(30_000, |one| one.guid = Some(UNKNOWN.to_owned()), &derived);
}
