//! Images, read by a second reader and by goblin, hold what their truth says.
//!
//! Owns: the comparison of lists. Must not know: how images are built.
//! Keeps: every kind of machine is compared: all layouts of the table, PAE, two levels, shadow tables.

mod compare;
mod reader;

use compare::{compare, image_is_right, loaded, symbol};
use goblin::pe::PE;
use memflow_windows_images::{
    Architecture, Description, Error, Exports, KdbgForm, MappedFile, OffsetTable, Offsets, Paging, PrivatePage,
    PrivateRegion, ProcessDescription, Windows,
    truth::{PageState, Through},
    windows_7_x86, windows_10_18362_x86, windows_10_19041_x86,
};
use reader::Reader;

/// One machine of each kind, with something of everything in it.
fn machines() -> Vec<(Offsets, Windows)> {
    let table = OffsetTable::embedded().unwrap();
    let mut kinds: Vec<(Architecture, Offsets)> = vec![
        (Architecture::X86, windows_7_x86()),
        (Architecture::Pae, windows_7_x86()),
        (Architecture::Pae, windows_10_18362_x86()),
        (Architecture::Pae, windows_10_19041_x86()),
    ];
    for (index, offsets) in table.families().into_iter().enumerate() {
        let architecture = if index % 2 == 0 { Architecture::X64 } else { Architecture::X64Shadow };
        kinds.push((architecture, offsets.clone()));
    }
    (0..)
        .zip(kinds)
        .map(|(seed, (architecture, offsets))| {
            let description = full(seed, architecture, offsets.clone());
            (offsets, description.build().unwrap())
        })
        .collect()
}

fn full(seed: u64, architecture: Architecture, offsets: Offsets) -> Description {
    let wide = offsets.wide;
    let mut description = Description::new(seed, architecture, offsets);
    description.large_kernel = seed.is_multiple_of(3);
    description.invalid_pte_mask = true;
    description.cluttered = !seed.is_multiple_of(4);
    description.pcid = seed.is_multiple_of(2);
    let mut program = ProcessDescription::new(5000, 2096, r"C:\Program Files (x86)\Game\a game with a long name.exe");
    program.wow64 = wide;
    program.modules.push("user32.dll".to_owned());
    program.unlinked_modules.push("injected.dll".to_owned());
    program.trimmed = 30;
    program.private = vec![PrivateRegion {
        protection: 4,
        pages: vec![
            PrivatePage::Valid,
            PrivatePage::Transition,
            PrivatePage::PageFile,
            PrivatePage::Compressed,
            PrivatePage::DemandZero,
            PrivatePage::Nothing,
        ],
    }];
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
    let mut hidden = ProcessDescription::new(6000, 5000, r"C:\Windows\System32\hidden.exe");
    hidden.hidden = true;
    let mut ended = ProcessDescription::new(6004, 5000, r"C:\Windows\System32\ended.exe");
    ended.ended = true;
    description.process(program).process(hidden).process(ended)
}

#[test]
fn one_seed_gives_one_image() {
    for seed in 0..4 {
        let description = Description::randomised(seed).unwrap();
        let (first, second) = (description.build().unwrap(), description.build().unwrap());
        assert_eq!(first.truth, second.truth);
        assert!(first.pages().eq(second.pages()), "pages of seed {seed}");
    }
}

#[test]
fn random_machines_can_all_be_built_and_read() {
    for seed in 0..60 {
        let description = Description::randomised(seed).unwrap();
        let windows = description.build().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        compare(&description.offsets, &windows);
    }
}

#[test]
fn lists_are_what_was_built() {
    for (offsets, windows) in machines() {
        compare(&offsets, &windows);
    }
}

#[test]
fn images_of_programs_are_what_goblin_reads() {
    for (offsets, windows) in machines() {
        // Nothing is trimmed there, so that all of the image can be read.
        let process = windows.truth.processes.iter().find(|process| process.short_name == "explorer.exe").unwrap();
        let space = Reader::new(&windows, &offsets, process.dtb);
        for module in &process.modules {
            if process.pages.iter().all(|page| {
                page.address < module.base || page.address > module.base + module.size || page.through == Through::Entry
            }) {
                image_is_right(&space, module, false);
            }
        }
    }
}

#[test]
fn tables_of_the_kernel_look_as_searches_expect() {
    for (offsets, windows) in machines() {
        let truth = &windows.truth;
        let number = |at, bytes| {
            let mut number = [0; 8];
            number[..bytes].copy_from_slice(&windows.read(at, bytes).unwrap());
            u64::from_le_bytes(number)
        };
        let upper: Vec<u64> = (0x800..0x1000).step_by(8).map(|at| number(truth.dtb + at, 8)).collect();
        match truth.paging {
            Paging::Four => {
                assert_eq!(number(truth.dtb, 8) & 0x87, 7);
                let own: Vec<usize> = (0..256).filter(|at| upper[*at] & 0x000f_ffff_ffff_f000 == truth.dtb).collect();
                assert_eq!(own, [truth.self_reference as usize - 256]);
                assert_eq!(upper[own[0]] & 0xfff, 0x63);
                assert!(upper.iter().filter(|entry| *entry & 0xff == 0x63).count() >= 6);
                assert!(upper.iter().filter(|entry| **entry == 0).count() > 0x40);
                assert_eq!(truth.self_reference == 0x1ed, offsets.version.build < 14393);
                let stub = truth.low_stub.unwrap();
                assert_eq!(number(stub, 8) & 0xffff_ffff_ffff_00ff, 0x1_0006_00e9);
                assert_eq!(number(stub + 0x70, 8) & 0xffff_f800_0000_0003, 0xffff_f800_0000_0000);
                assert_eq!(number(stub + 0xa0, 8), truth.dtb);
            }
            Paging::Pae => {
                for at in 0..4 {
                    assert_eq!(number(truth.dtb + at * 8, 8), truth.dtb + (at << 12) + 0x1001);
                }
                assert!((32..0x1000).step_by(8).all(|at| number(truth.dtb + at, 8) == 0));
            }
            Paging::Two => {
                assert_eq!(number(truth.dtb, 1), 0x67);
                assert_eq!(number(truth.dtb + 0xc00, 4) & 0xffff_f003, truth.dtb + 3);
                let kernel =
                    (0x800..0x1000).step_by(4).filter(|at| matches!(number(truth.dtb + at, 1), 0x63 | 0xe3)).count();
                assert!(kernel > 16, "{kernel}");
            }
        }
    }
}

#[test]
fn shadow_tables_show_the_process_and_hardly_anything_of_the_kernel() {
    let mut seen = 0;
    for (offsets, windows) in machines().into_iter().filter(|machine| machine.1.truth.kva_shadow) {
        let truth = &windows.truth;
        for process in
            truth.processes.iter().filter(|process| process.user_dtb.unwrap_or(0) > 0x1000 && process.pid != 4)
        {
            let (own, shadow) = (
                Reader::new(&windows, &offsets, process.dtb),
                Reader::new(&windows, &offsets, process.user_dtb.unwrap()),
            );
            assert_eq!(shadow.physical(process.peb), own.physical(process.peb));
            assert_eq!(shadow.physical(truth.processors[0].kpcr), own.physical(truth.processors[0].kpcr));
            assert_eq!(shadow.physical(process.eprocess), None);
            seen += 1;
        }
        let system = Reader::new(&windows, &offsets, truth.processes[0].user_dtb.unwrap());
        assert!((0..256).all(|at| windows.read(system.root + at * 8, 8).unwrap() == [0; 8]), "System has no user mode");
        assert!(system.physical(truth.processors[0].kpcr).is_some());
    }
    assert!(seen > 3);
}

#[test]
fn debugger_block_is_plain_or_decodes() {
    for (offsets, windows) in machines() {
        let system = Reader::system(&windows, &offsets);
        let kdbg = windows.truth.kernel.kdbg.as_ref().unwrap();
        let mut block = system.bytes(kdbg.address, kdbg.size).unwrap();
        if kdbg.encoded {
            assert_ne!(&block[0x10..0x14], b"KDBG");
            let value = |name| system.number(symbol(&windows, name), 8).unwrap();
            let (never, always, flag) =
                (value("KiWaitNever"), value("KiWaitAlways"), symbol(&windows, "KdpDataBlockEncoded"));
            for word in block.chunks_mut(8) {
                let stored = u64::from_le_bytes(word.try_into().unwrap());
                let plain = ((stored ^ never).rotate_left(never as u32 & 0xff) ^ flag).swap_bytes() ^ always;
                word.copy_from_slice(&plain.to_le_bytes());
            }
        }
        assert_eq!(&block[0x10..0x14], b"KDBG");
        assert_eq!(&block[0x18..0x20], windows.truth.kernel.base.to_le_bytes());
        assert_eq!(&block[0x48..0x50], symbol(&windows, "PsLoadedModuleList").to_le_bytes());
        assert_eq!(&block[0x50..0x58], symbol(&windows, "PsActiveProcessHead").to_le_bytes());
    }
}

#[test]
fn kernel_names_its_symbol_file_and_variables_are_where_the_table_says() {
    for (offsets, windows) in machines() {
        let system = Reader::system(&windows, &offsets);
        let kernel = &windows.truth.kernel;
        let bytes = system.padded(kernel.base, kernel.size);
        let pe = PE::parse_with_opts(&bytes, &loaded()).unwrap();
        let codeview = pe.debug_data.unwrap().codeview_pdb70_debug_info.unwrap();
        let guid = codeview.signature;
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        let written: String = order.iter().map(|at| format!("{:02X}", guid[*at])).collect();
        assert_eq!((written, codeview.age), (kernel.guid.clone(), kernel.age));
        for (name, rva) in offsets.iter().filter_map(|(name, rva)| Some((name.strip_prefix("rva:")?, rva))) {
            assert_eq!(symbol(&windows, name), kernel.base + rva);
        }
        let build = system.number(symbol(&windows, "NtBuildNumber"), 4).unwrap();
        assert_eq!(build, 0xf000_0000 | u64::from(offsets.version.build));
        assert!(bytes.windows(8).take(0x1000).any(|name| name == b"POOLCODE"));
        assert!((4 << 20..24 << 20).contains(&kernel.size));
    }
}

#[test]
fn exports_of_a_kernel_may_be_missing_and_its_guid_unknown() {
    let offsets = OffsetTable::embedded().unwrap().build("10.0.19041").unwrap().clone();
    for large in [false, true] {
        let mut description = Description::new(9, Architecture::X64, offsets.clone());
        description.exports = Exports::Missing;
        description.large_kernel = large;
        description.guid = Some("0123456789abcdef0123456789abcdef".to_owned());
        description.kdbg = KdbgForm::Absent;
        let windows = description.build().unwrap();
        assert_eq!(windows.missing().count(), 2);
        assert_eq!(windows.truth.kernel.guid, "0123456789ABCDEF0123456789ABCDEF");
        assert_eq!(windows.truth.kernel.kdbg, None);
        compare(&offsets, &windows);
    }
}

#[test]
fn a_machine_may_have_two_gigabytes_and_a_page_of_one() {
    let offsets = OffsetTable::embedded().unwrap().build("10.0.22000").unwrap().clone();
    let mut description = full(3, Architecture::X64, offsets.clone());
    description.ram = 5 << 29;
    description.processes[4].huge_page = true;
    let windows = description.build().unwrap();
    compare(&offsets, &windows);
    let explorer = &windows.truth.processes[6];
    let page = explorer.pages.iter().find(|page| page.size == 1 << 30).unwrap();
    assert_eq!(page.physical.unwrap() % (1 << 30), 0);
    assert!(windows.pages().count() < 4000, "{} pages", windows.pages().count());
}

#[test]
fn ended_and_hidden_processes_are_what_they_are_said_to_be() {
    for (offsets, windows) in machines() {
        let system = Reader::system(&windows, &offsets);
        let by_name = |name: &str| windows.truth.processes.iter().find(|process| process.short_name == name).unwrap();
        let (hidden, ended) = (by_name("hidden.exe"), by_name("ended.exe"));
        let links = hidden.eprocess + system.offset("_EPROCESS.ActiveProcessLinks");
        assert!(!hidden.listed && system.list(links, system.width()).is_empty() && hidden.threads.len() == 2);
        let exit = system.number(ended.eprocess + system.offset("_EPROCESS.ExitTime"), 8);
        assert!(ended.listed && exit == ended.exit_time && ended.exit_time > Some(ended.create_time));
        assert_eq!((ended.peb, ended.object_table, ended.vads.len(), ended.threads.len()), (0, 0, 0, 0));
        let runs = system.number(hidden.eprocess + system.offset("_EPROCESS.ExitTime"), 8);
        assert_eq!((runs, hidden.exit_time), (Some(0), None));
    }
}

#[test]
fn contradictions_are_refused() {
    let offsets = OffsetTable::embedded().unwrap().build("10.0.22000").unwrap().clone();
    let refused = |description: &Description| description.build().unwrap_err().to_string();
    let narrow = Description::new(0, Architecture::Pae, offsets.clone());
    assert_eq!(refused(&narrow), "Pae with offsets of 64 bits");
    let twice =
        Description::new(0, Architecture::X64, offsets.clone()).process(ProcessDescription::new(308, 4, r"C:\a.exe"));
    assert_eq!(refused(&twice), "a.exe has the number 308, which is taken or no multiple of four");
    let mut small = Description::new(0, Architecture::X64, offsets.clone());
    small.ram = 1 << 20;
    assert_eq!(small.build().unwrap_err(), Error::Ram { bytes: 1 << 20 });
    let unknown = Description::new(0, Architecture::X64, offsets.with("_EPROCESS.VadRoot", None));
    assert_eq!(refused(&unknown), "the offsets of build 22000 have no _EPROCESS.VadRoot, which an image needs");
}
