//! Machines of the generator, read by the layer: every list is what was built, nothing more and nothing less.

mod damage;
mod equal;
mod hostile;
mod image;
mod within;

use std::collections::BTreeSet;

use memflow_win32::{OffsetSources, Win32Options, Win32Os};
use memflow_windows_images::{
    Account, Architecture, Description, Exports, KdbgForm, MappedFile, OffsetTable, Offsets, PrivatePage,
    PrivateRegion, ProcessDescription, Windows,
    truth::{PageState, Through},
    windows_7_x86, windows_10_18362_x86, windows_10_19041_x86,
};

use crate::equal::{PageFiles, compare};

fn table() -> OffsetTable {
    OffsetTable::embedded().unwrap()
}

/// A machine with something of everything.
fn full(seed: u64, architecture: Architecture, offsets: Offsets) -> Description {
    let wide = offsets.wide;
    let mut description = Description::new(seed, architecture, offsets);
    description.ram = 128 << 20;
    description.large_kernel = seed.is_multiple_of(3);
    description.invalid_pte_mask = !seed.is_multiple_of(4);
    description.cluttered = seed.is_multiple_of(2);
    description.pcid = seed.is_multiple_of(2);
    let mut program = ProcessDescription::new(5000, 2096, r"C:\Program Files (x86)\Game\a game with a long name.exe");
    program.wow64 = wide;
    program.account = Account::Sandbox;
    program.modules.push("user32.dll".to_owned());
    program.unlinked_modules.push("injected.dll".to_owned());
    program.trimmed = 30;
    let pages = [
        PrivatePage::Valid,
        PrivatePage::Transition,
        PrivatePage::PageFile,
        PrivatePage::PageFile,
        PrivatePage::Compressed,
        PrivatePage::DemandZero,
        PrivatePage::Nothing,
    ];
    program.private = vec![PrivateRegion { protection: 4, pages: pages.to_vec() }];
    let pages = vec![
        (PageState::Valid, Through::Entry),
        (PageState::Transition, Through::Prototype),
        (PageState::Transition, Through::Vad),
        (PageState::Transition, Through::Nothing),
        (PageState::DemandZero, Through::Prototype),
        (PageState::PageFile { file: 0, page: 7 }, Through::Vad),
        (PageState::File, Through::Nothing),
    ];
    program.mapped = vec![MappedFile { path: r"C:\Users\user\data.bin".to_owned(), pages }];
    program.large_pages = 2;
    let mut administrator = ProcessDescription::new(5004, 2096, r"C:\Windows\System32\admin.exe");
    administrator.account = Account::Administrator;
    let mut hidden = ProcessDescription::new(6000, 5000, r"C:\Windows\System32\hidden.exe");
    hidden.hidden = true;
    let mut ended = ProcessDescription::new(6004, 5000, r"C:\Windows\System32\ended.exe");
    ended.ended = true;
    description.process(program).process(administrator).process(hidden).process(ended)
}

/// Opens a machine and compares.
fn check(windows: &Windows, page_files: PageFiles, options: Win32Options<'_>) -> BTreeSet<&'static str> {
    let files = match page_files {
        PageFiles::None => Vec::new(),
        PageFiles::First => vec![image::page_file(windows, 0)],
    };
    let mut options = options;
    options.page_files = &files;
    let memory = image::memory(windows, &[], image::processors(windows));
    let os =
        Win32Os::open(memory, &options).unwrap_or_else(|error| panic!("{}: {error}", windows.truth.kernel.version));
    compare(&os, windows, page_files)
}

#[test]
fn lists_of_each_family_of_builds_are_what_was_built() {
    let table = table();
    for (seed, offsets) in (0..).zip(table.families()) {
        for architecture in [Architecture::X64, Architecture::X64Shadow] {
            let windows = full(seed, architecture, offsets.clone()).build().unwrap();
            let page_files = if seed.is_multiple_of(2) { PageFiles::First } else { PageFiles::None };
            let kinds = check(&windows, page_files, Win32Options::default());
            for kind in ["valid", "in transition", "zeros", "in a file"] {
                assert!(kinds.contains(kind), "{kind}: {kinds:?}");
            }
            assert_eq!(kinds.contains("compressed"), offsets.version.major == 10, "{kinds:?}");
            assert_eq!(kinds.contains("in a page file at hand"), page_files == PageFiles::First, "{kinds:?}");
        }
    }
}

/// The 32-bit systems there are; no table has them.
fn narrow() -> [(Architecture, Offsets); 4] {
    [
        (Architecture::X86, windows_7_x86()),
        (Architecture::Pae, windows_7_x86()),
        (Architecture::Pae, windows_10_18362_x86()),
        (Architecture::Pae, windows_10_19041_x86()),
    ]
}

#[test]
fn lists_of_32_bit_systems_are_what_was_built() {
    for (seed, (architecture, offsets)) in (20..).zip(narrow()) {
        let windows = full(seed, architecture, offsets.clone()).build().unwrap();
        let page_files = if seed.is_multiple_of(2) { PageFiles::First } else { PageFiles::None };
        check(&windows, page_files, Win32Options::default());
        let known: Vec<(&str, u64)> = offsets.iter().collect();
        let mut options = Win32Options::default();
        options.known = &known;
        check(&windows, page_files, options);
    }
}

#[test]
fn lists_of_random_machines_are_what_was_built() {
    for seed in 100..160 {
        let description = Description::randomised(seed).unwrap();
        let windows = description.build().unwrap();
        // No table has the numbers of 32-bit builds, and not every machine tells all of them.
        let known: Vec<(&str, u64)> =
            if description.offsets.wide { Vec::new() } else { description.offsets.iter().collect() };
        let mut options = Win32Options::default();
        options.known = &known;
        check(&windows, PageFiles::First, options);
    }
}

#[test]
fn lists_of_a_kernel_without_exports_and_debugger_block_are_what_was_built() {
    let offsets = table().build("10.0.19041").unwrap().clone();
    let mut description = full(9, Architecture::X64, offsets);
    (description.exports, description.kdbg) = (Exports::Missing, KdbgForm::Absent);
    check(&description.build().unwrap(), PageFiles::None, Win32Options::default());
}

/// Nothing of the table is used, as if the build were in none.
fn derived() -> Win32Options<'static> {
    let mut options = Win32Options::default();
    options.offsets = OffsetSources::Derived;
    options
}

#[test]
fn lists_with_offsets_from_memory_are_what_was_built() {
    let table = table();
    for (seed, offsets) in (200..).zip(table.families()) {
        for (number, architecture) in [Architecture::X64, Architecture::X64Shadow].into_iter().enumerate() {
            let windows = full(seed + number as u64, architecture, offsets.clone()).build().unwrap();
            check(&windows, PageFiles::First, derived());
        }
    }
}

#[test]
fn lists_of_a_build_that_no_table_has_are_what_was_built() {
    let table = table();
    for (seed, offsets) in (220..).zip(table.families()) {
        let mut description = full(seed, Architecture::X64, offsets.clone());
        description.guid = Some("0123456789abcdef0123456789abcdef".to_owned());
        description.kdbg = KdbgForm::Absent;
        description.low_stub = seed.is_multiple_of(2);
        check(&description.build().unwrap(), PageFiles::None, Win32Options::default());
    }
}
