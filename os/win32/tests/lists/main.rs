//! Machines of the generator, read by the layer: every list is what was built, nothing more and nothing less.

mod damage;
mod equal;
mod image;
mod within;

use memflow_win32::{Win32Options, Win32Os};
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

/// Opens a machine and compares. Numbers of 32-bit builds are in no table, so they are given.
fn check(offsets: &Offsets, windows: &Windows, page_files: PageFiles) {
    let known: Vec<(&str, u64)> = if offsets.wide { Vec::new() } else { offsets.iter().collect() };
    let files = match page_files {
        PageFiles::None => Vec::new(),
        PageFiles::First => vec![image::page_file(windows, 0)],
    };
    let mut options = Win32Options::default();
    (options.known, options.page_files) = (&known, &files);
    let memory = image::memory(windows, &[], image::processors(windows));
    let os = Win32Os::open(memory, &options).unwrap_or_else(|error| panic!("{}: {error}", offsets.version));
    compare(&os, windows, page_files);
}

#[test]
fn lists_of_each_family_of_builds_are_what_was_built() {
    let table = table();
    for (seed, offsets) in (0..).zip(table.families()) {
        for architecture in [Architecture::X64, Architecture::X64Shadow] {
            let windows = full(seed, architecture, offsets.clone()).build().unwrap();
            check(offsets, &windows, if seed.is_multiple_of(2) { PageFiles::First } else { PageFiles::None });
        }
    }
}

#[test]
fn lists_of_32_bit_systems_are_what_was_built() {
    let kinds = [
        (Architecture::X86, windows_7_x86()),
        (Architecture::Pae, windows_7_x86()),
        (Architecture::Pae, windows_10_18362_x86()),
        (Architecture::Pae, windows_10_19041_x86()),
    ];
    for (seed, (architecture, offsets)) in (20..).zip(kinds) {
        let windows = full(seed, architecture, offsets.clone()).build().unwrap();
        check(&offsets, &windows, if seed.is_multiple_of(2) { PageFiles::First } else { PageFiles::None });
    }
}

#[test]
fn lists_of_random_machines_are_what_was_built() {
    for seed in 100..160 {
        let description = Description::randomised(seed).unwrap();
        let windows = description.build().unwrap();
        check(&description.offsets, &windows, PageFiles::First);
    }
}

#[test]
fn lists_of_a_kernel_without_exports_and_debugger_block_are_what_was_built() {
    let offsets = table().build("10.0.19041").unwrap().clone();
    let mut description = full(9, Architecture::X64, offsets.clone());
    (description.exports, description.kdbg) = (Exports::Missing, KdbgForm::Absent);
    check(&offsets, &description.build().unwrap(), PageFiles::None);
}
