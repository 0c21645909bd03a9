//! Damaged targets: real guests with bytes changed or gone. Each gives a clear error or an honest partial answer, soon, and
//! never a panic, a hang or a wrong list.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use memflow_core::{
    Error, MemoryViewExt, PageSize, PhysAddr, PhysRange, PhysicalMemory, VirtAddr,
    memory::PhysicalMemoryExt,
    os::{Os, ProcessInfo, RegionKind},
};
use memflow_guests::CapturedGuest;
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_tests::{Form, Patched, Random, guest};

/// Guests that between them have both kernels and both depths of tables.
const GUESTS: [&str; 2] = ["amd64-6.1-5level-nopti", "amd64-6.12-4level-pti"];

fn open(memory: impl PhysicalMemory + 'static) -> Result<LinuxOs, Error> {
    LinuxOs::open(Arc::new(memory), &LinuxOptions::default())
}

/// The kernel as found in the undamaged dump, to know where to do damage.
fn sound(guest: &CapturedGuest) -> LinuxOs {
    LinuxOs::open(Form::Dump.memory(guest), &LinuxOptions::default()).unwrap()
}

fn physical(os: &LinuxOs, address: VirtAddr) -> PhysAddr {
    os.kernel_space().translate(&**os.physical_memory(), address).unwrap().phys
}

fn symbol(os: &LinuxOs, name: &str) -> VirtAddr {
    os.symbols_named(name).unwrap().first().unwrap_or_else(|| panic!("no symbol {name}")).address
}

/// The address of a symbol in the dump's VMCOREINFO: the symbol table does not list itself.
fn noted(os: &LinuxOs, name: &str) -> VirtAddr {
    let note = os.physical_memory().facts().vmcoreinfo.clone().unwrap();
    let note = String::from_utf8(note).unwrap();
    let key = format!("SYMBOL({name})=");
    let value = note.lines().find_map(|line| line.strip_prefix(&key)).unwrap_or_else(|| panic!("no {key}"));
    VirtAddr::new(u64::from_str_radix(value, 16).unwrap())
}

fn expected_pids(guest: &CapturedGuest) -> Vec<u32> {
    guest.truth.processes().unwrap().into_iter().map(|process| process.pid).collect()
}

fn pids(list: &[ProcessInfo]) -> Vec<u32> {
    let mut pids: Vec<u32> = list.iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    pids
}

/// Every place in physical memory that holds `needle`.
fn places(memory: &dyn PhysicalMemory, needle: &[u8]) -> Vec<PhysAddr> {
    let mut found = Vec::new();
    for run in memory.metadata().runs.runs() {
        let mut bytes = vec![0; run.range.len() as usize];
        memory.read_into(run.range.start(), &mut bytes).unwrap();
        let finds = bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle);
        found.extend(finds.map(|(offset, _)| run.range.start().wrapping_add(offset as u64)));
    }
    found
}

/// The memory without the text of VMCOREINFO, wherever it lies, and without the page tables of the boot trampoline.
fn without_vmcoreinfo(guest: &CapturedGuest) -> Patched {
    let memory = Form::Live.memory(guest);
    let mut patched = without_trampoline(memory.clone());
    for key in [&b"SYMBOL(swapper_pg_dir)="[..], b"KERNELOFFSET=", b"NUMBER(phys_base)=", b"BUILD-ID="] {
        for place in places(&*memory, key) {
            patched = patched.with(place, vec![b'#'; key.len()]);
        }
    }
    patched
}

/// The memory with zeros where page tables in the first MiB would map the kernel's image.
fn without_trampoline(memory: Arc<dyn PhysicalMemory>) -> Patched {
    let is_used = |at: &PhysAddr| {
        let mut entry = [0; 8];
        memory.read_into(*at, &mut entry).is_ok() && entry != [0; 8]
    };
    let entries: Vec<PhysAddr> = (0..256).map(|page| PhysAddr::new(page * 4096 + 0xff8)).filter(is_used).collect();
    entries.into_iter().fold(Patched::new(memory), |patched, at| patched.with(at, vec![0; 8]))
}

#[test]
fn kernel_is_found_by_its_boot_trampoline_and_without_it() {
    for name in GUESTS {
        let guest = guest(name);
        let memory = Form::Live.memory(&guest);
        for (memory, by) in [
            (memory.clone(), "boot trampoline: page tables at physical"),
            (Arc::new(without_trampoline(memory)), "VMCOREINFO at physical"),
        ] {
            let os = LinuxOs::open(memory, &LinuxOptions::default()).unwrap();
            assert!(os.kernel().evidence[0].starts_with(by), "{name}: {:?}", os.kernel().evidence);
            let list = os.processes().unwrap().into_complete().unwrap();
            assert_eq!(pids(&list), expected_pids(&guest), "{name}");
        }
    }
}

#[test]
fn kernel_is_found_without_vmcoreinfo_and_without_registers() {
    for name in GUESTS {
        let guest = guest(name);
        let os = open(without_vmcoreinfo(&guest).without_facts()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let list = os.processes().unwrap().into_complete().unwrap();
        assert_eq!(pids(&list), expected_pids(&guest), "{name}");
    }
}

/// Puts zeros in place of the kernel's symbol table.
fn wipe_symbols(memory: Patched, guest: &CapturedGuest) -> Patched {
    let os = sound(guest);
    let count = physical(&os, noted(&os, "kallsyms_num_syms"));
    let mut raw = [0; 4];
    os.physical_memory().read_into(count, &mut raw).unwrap();
    let count_of_symbols = u64::from(u32::from_le_bytes(raw));
    assert!(count_of_symbols > 10_000, "{count_of_symbols}");
    let names = noted(&os, "kallsyms_names");
    let names_len = noted(&os, "kallsyms_token_table").offset_from(names).unwrap();
    let mut patched = memory.with(count, vec![0; 4]);
    for (from, len) in [
        (names, names_len),
        (noted(&os, "kallsyms_token_table"), 0x400),
        (noted(&os, "kallsyms_token_index"), 0x200),
        (noted(&os, "kallsyms_offsets"), count_of_symbols * 4),
    ] {
        // The kernel's image is contiguous in physical memory.
        patched = patched.with(physical(&os, from), vec![0; len as usize]);
    }
    patched
}

#[test]
fn kernel_without_symbol_table_is_found_by_its_types_and_first_task() {
    for name in GUESTS {
        let guest = guest(name);
        let whole = sound(&guest);
        let wiped = wipe_symbols(without_vmcoreinfo(&guest), &guest).without_facts();
        let os = open(wiped).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(os.kernel_space(), whole.kernel_space(), "{name}");
        let (info, expected) = (os.kernel(), whole.kernel());
        assert_eq!(
            (&info.release, &info.version, &info.hostname, info.base),
            (&expected.release, &expected.version, &expected.hostname, expected.base),
            "{name}"
        );
        assert!(info.evidence.iter().any(|line| line.contains("no symbol table")), "{name}: {:?}", info.evidence);

        let list = os.processes().unwrap().into_complete().unwrap();
        assert_eq!(pids(&list), expected_pids(&guest), "{name}");
        let init = list.iter().find(|process| process.pid == 1).unwrap();
        let (found, known) = (os.open(init).unwrap(), whole.open(init).unwrap());
        assert_eq!(found.command_line().unwrap(), known.command_line().unwrap(), "{name}");
        let (found, known) = (found.memory_map().unwrap(), known.memory_map().unwrap().into_complete().unwrap());
        // The vsyscall page is in no process' records: only a symbol tells whether there is one, and the map says so.
        let vsyscall = RegionKind::Special { name: "[vsyscall]".to_owned() };
        let known: Vec<_> = known.into_iter().filter(|region| region.kind != vsyscall).collect();
        assert_eq!(found.items, known, "{name}");
        let problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        assert!(problems.len() == 1 && problems[0].starts_with("vsyscall page"), "{name}: {problems:?}");

        for error in [
            os.symbols().unwrap_err(),
            os.symbols_named("init_task").unwrap_err(),
            os.symbol_at(info.base).unwrap_err(),
            os.modules().unwrap_err(),
            os.kernel_log().unwrap_err(),
        ] {
            assert!(error.to_string().contains("the kernel's symbol table was not found"), "{name}: {error}");
        }
    }
}

#[test]
fn kernel_whose_note_leads_to_no_symbol_table_keeps_the_symbols_of_the_note() {
    for name in GUESTS {
        let guest = guest(name);
        let whole = sound(&guest);
        let wiped = wipe_symbols(Patched::new(Form::Dump.memory(&guest)), &guest);
        let os = open(wiped).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(os.kernel_space(), whole.kernel_space(), "{name}");
        assert_eq!(os.kernel().build_id, whole.kernel().build_id, "{name}");
        assert_eq!(pids(&os.processes().unwrap().into_complete().unwrap()), expected_pids(&guest), "{name}");
        assert!(os.symbols().unwrap_err().to_string().contains("the kernel's symbol table was not found"), "{name}");
        // The note names the log's ring buffer.
        let texts = |os: &LinuxOs| -> Vec<String> {
            os.kernel_log().unwrap().into_complete().unwrap().into_iter().map(|record| record.text).collect()
        };
        assert_eq!(texts(&os), texts(&whole), "{name}");
    }
}

#[test]
fn kernel_is_found_by_registers_alone() {
    for name in GUESTS {
        let guest = guest(name);
        let memory = Form::Dump.memory(&guest);
        let mut patched = Patched::new(memory.clone()).without_vmcoreinfo_fact();
        for place in places(&*memory, b"OSRELEASE=") {
            patched = patched.with(place, vec![b'#'; 10]);
        }
        let os = open(patched).unwrap_or_else(|error| panic!("{name}: {error}"));
        let list = os.processes().unwrap().into_complete().unwrap();
        assert_eq!(pids(&list), expected_pids(&guest), "{name}");
    }
}

#[test]
fn image_without_an_operating_system_says_what_was_looked_for() {
    let guest = guest(GUESTS[0]);
    let memory = Form::Live.memory(&guest);
    // Everything but the first 64 KiB and the firmware is gone: there is memory, but no kernel in it.
    let rest = PhysRange::between(PhysAddr::new(0x1_0000), PhysAddr::new(0x1_0000_0000)).unwrap();
    let error = open(Patched::new(memory).without(rest)).unwrap_err();
    assert!(matches!(error.root_cause(), Error::NotRecognised { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("no Linux kernel found; looked for"), "{text}");
    assert!(text.contains("VMCOREINFO"), "{text}");
}

/// True when the error names memory that is not there, or lists everything that was looked for.
fn tells_what_is_gone(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("not in the image") || text.contains("looked for VMCOREINFO")
}

#[test]
fn half_an_image_is_an_error_or_an_honest_part() {
    for name in GUESTS {
        let guest = guest(name);
        let expected = expected_pids(&guest);
        // Cut off at each 32 MiB, and with a hole of 32 MiB anywhere: the kernel lies at another place in each boot.
        let step = 32 << 20;
        let cuts = (1..8).map(|number| (number * step, 1 << 44));
        let holes = (0..8).map(|number| (number * step + 0x1_0000, (number + 1) * step));
        for (from, to) in cuts.chain(holes) {
            let range = PhysRange::between(PhysAddr::new(from), PhysAddr::new(to)).unwrap();
            let started = Instant::now();
            match open(Patched::new(Form::Live.memory(&guest)).without(range)) {
                Err(error) => assert!(tells_what_is_gone(&error), "{name}: {error}"),
                Ok(os) => match os.processes() {
                    Err(error) => assert!(tells_what_is_gone(&error), "{name}: {error}"),
                    Ok(list) if list.is_complete() => assert_eq!(pids(&list.items), expected, "{name}"),
                    Ok(list) => assert!(pids(&list.items).iter().all(|pid| expected.contains(pid)), "{name}"),
                },
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{name}: {:?}", started.elapsed());
        }
    }
}

#[test]
fn zeroed_and_self_pointing_page_tables_are_errors() {
    for name in GUESTS {
        let guest = guest(name);
        let os = sound(&guest);
        let root = os.kernel_space().root();
        let myself = (root.as_u64() | 0x63).to_le_bytes().repeat(512);
        for (what, table) in [("zeroed", vec![0; 4096]), ("self-pointing", myself)] {
            // The dump's vCPU registers lead to other roots that are sound; here the root itself is looked at.
            let damaged = Patched::new(Form::Dump.memory(&guest)).with(root, table);
            let address = symbol(&os, "init_task");
            let found = os.kernel_space().translate(&damaged, address);
            match what {
                "zeroed" => assert!(found.is_err(), "{name} {what}: {found:?}"),
                // Every index leads back to the root, whose entry is then taken for a page.
                _ => assert_eq!(found.unwrap().phys.page_base(PageSize::KIB_4), root, "{name} {what}"),
            }
            let started = Instant::now();
            if let Ok(os) = open(damaged.without_facts())
                && let Ok(list) = os.processes()
                && list.is_complete()
            {
                assert_eq!(pids(&list.items), expected_pids(&guest), "{name} {what}");
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{name} {what}: {:?}", started.elapsed());
        }
    }
}

#[test]
fn process_list_that_loops_ends_and_says_so() {
    for name in GUESTS {
        let guest = guest(name);
        let os = sound(&guest);
        let list = os.processes().unwrap().into_complete().unwrap();
        // The links lie at the same distance in every task: found by the pointers that lead from one listed task into the next.
        let (first, second, third) = (list[2].address, list[3].address, list[4].address);
        let task: Vec<u8> = os.kernel_view().read_bytes(second, 0x1000).unwrap();
        let links: Vec<u64> = task.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let offset = (0..links.len() - 1)
            .find(|index| {
                let here = *index as u64 * 8;
                links[*index] == third.as_u64() + here && links[index + 1] == first.as_u64() + here
            })
            .expect("the task list's links") as u64
            * 8;
        let next = physical(&os, second.wrapping_add(offset));
        let memory = Form::Dump.memory(&guest);
        let back_to_first = (first.as_u64() + offset).to_le_bytes();
        let looped = open(Patched::new(memory.clone()).with(next, back_to_first)).unwrap();
        let damaged = looped.processes().unwrap();
        assert!(!damaged.is_complete(), "{name}: a loop was taken for a whole list");
        assert!(damaged.items.len() <= list.len());
        // A link to nowhere.
        let torn = open(Patched::new(memory).with(next, 0xdead_0000_0000_0000u64.to_le_bytes())).unwrap();
        assert!(!torn.processes().unwrap().is_complete(), "{name}: a torn list was taken for a whole one");
    }
}

#[test]
fn corrupt_kallsyms_and_types_never_panic_or_hang() {
    for name in GUESTS {
        let guest = guest(name);
        let os = sound(&guest);
        let expected = expected_pids(&guest);
        let mut random = Random(0x6d65_6d66);
        let types = symbol(&os, "__start_BTF");
        for (from, len) in [
            (noted(&os, "kallsyms_names"), 0x10_0000),
            (noted(&os, "kallsyms_token_table"), 0x400),
            (noted(&os, "kallsyms_offsets"), 0x4_0000),
            (types, symbol(&os, "__stop_BTF").offset_from(types).unwrap()),
        ] {
            for round in 0..12 {
                let mut damaged = Patched::new(Form::Dump.memory(&guest));
                for _ in 0..=(round * 4) {
                    let at = physical(&os, from.wrapping_add(random.below(len)));
                    damaged = damaged.with(at, random.next_u64().to_le_bytes());
                }
                if round == 11 {
                    damaged = damaged.with(physical(&os, from), vec![0; 64]);
                }
                let started = Instant::now();
                if let Ok(os) = open(damaged)
                    && let Ok(list) = os.processes()
                    && list.is_complete()
                {
                    // Damage that misses what the process list needs changes nothing.
                    assert_eq!(pids(&list.items), expected, "{name} round {round}");
                }
                assert!(started.elapsed() < Duration::from_secs(60), "{name} round {round}: {:?}", started.elapsed());
            }
        }
    }
}

#[test]
fn unsupported_paging_mode_is_named() {
    for name in ["i386-6.1-legacy", "i386-6.1-pae"] {
        let guest = guest(name);
        let error = LinuxOs::open(Form::Dump.memory(&guest), &LinuxOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("32-bit"), "{name}: {text}");
    }
}
