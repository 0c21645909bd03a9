//! Kernels built in code: page tables, symbol table, types and names, found in every way there is.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use memflow_core::{
    Error, PageSize, PhysAddr, PhysicalMemory, Result, VirtAddr,
    memory::{
        BufferMemory, MachineKind, Metadata, PhysRead, PhysWrite, RunMap, SourceConfig, TargetFacts, VcpuRegisters,
        X86Registers,
    },
    testkit::{MachineBuilder, PagingMode, entry_bits},
};

use crate::{
    Kernel, LinuxOptions,
    symbols::synthetic::{self, BASE, END, Kind, Order, Symbol},
    types::synthetic::Builder,
};

const RELEASE: &str = "6.99.0-test";
/// Where the image lies in physical memory: at the same offset in 2 MiB as its address.
const IMAGE: u64 = 0x40_0000;
/// Places in the image.
const BANNER: u64 = 0x30_0000;
const UTS: u64 = 0x30_1000;
const ROOT: u64 = 0x30_2000;
const CLOCK: u64 = 0x30_3000;
const IDLE: u64 = 0x30_4000;
const INIT: u64 = 0x30_4800;
const NSPROXY: u64 = 0x30_4c00;
const BTF: u64 = 0x31_0000;
/// Page that holds the root of the trampoline.
const TRAMPOLINE: u64 = 0x9_c000;
/// Page that holds the note.
const NOTE: u64 = 0x10_0000;

/// What a synthetic kernel is made of.
#[derive(Clone, Copy)]
struct Plan {
    mode: PagingMode,
    order: Order,
    kind: Kind,
    /// Added to every physical address of the kernel.
    shift: u64,
    /// Seconds after 1970 that its clock shows.
    clock: u64,
    note: bool,
    /// Whether it can start processors, and has page tables for that in the first MiB.
    trampoline: bool,
    /// Whether it has a symbol table; one without has tasks.
    symbols: bool,
}

const PLAN: Plan = Plan {
    mode: PagingMode::X64,
    order: Order::New,
    kind: Kind::Percpu,
    shift: 0,
    clock: 1_000,
    note: true,
    trampoline: false,
    symbols: true,
};

fn types() -> Vec<u8> {
    let mut b = Builder::new();
    let char = b.int("char", 1, 8);
    let long = b.int("long int", 8, 64);
    let text = b.array(char, long, 65);
    let names = ["sysname", "nodename", "release", "version", "machine", "domainname"];
    let members: Vec<_> = names.iter().zip(0u32..).map(|(name, index)| (*name, text, index * 65 * 8, 0)).collect();
    let uts = b.structure("new_utsname", 390, &members);
    b.structure("uts_namespace", 400, &[("name", uts, 0, 0)]);
    let int = b.int("int", 4, 32);
    let comm = b.array(char, long, 16);
    let pointer = b.pointer(0);
    let list = b.structure("list_head", 16, &[("next", pointer, 0, 0), ("prev", pointer, 64, 0)]);
    b.structure("nsproxy", 16, &[("uts_ns", pointer, 64, 0)]);
    b.structure(
        "task_struct",
        80,
        &[
            ("pid", int, 32, 0),
            ("tgid", int, 64, 0),
            ("comm", comm, 96, 0),
            ("group_leader", pointer, 256, 0),
            ("parent", pointer, 320, 0),
            ("real_parent", pointer, 384, 0),
            ("tasks", list, 448, 0),
            ("nsproxy", pointer, 576, 0),
        ],
    );
    b.structure(
        "timekeeper",
        24,
        &[("xtime_sec", long, 0, 0), ("offs_real", long, 64, 0), ("offs_boot", long, 128, 0)],
    );
    b.section()
}

fn symbols(kind: Kind, btf_len: u64) -> Vec<Symbol> {
    let at = |offset: u64, kind: char, name: &str| (BASE + offset, kind, name.to_owned());
    let mut symbols = vec![at(0, 'T', "_text"), at(0, 'T', "_stext")];
    if kind == Kind::Percpu {
        symbols.insert(0, (0, 'A', "fixed_percpu_data".to_owned()));
    }
    symbols.extend((0..600).map(|number| at(0x100 + number * 16, 't', &format!("function_{number}"))));
    symbols.extend([
        at(BANNER, 'D', "linux_banner"),
        at(UTS, 'D', "init_uts_ns"),
        at(ROOT, 'D', "init_top_pgt"),
        at(CLOCK, 'd', "tk_core"),
        at(BTF, 'R', "__start_BTF"),
        at(BTF + btf_len, 'R', "__stop_BTF"),
        at(END - BASE, 'B', "_end"),
    ]);
    symbols
}

/// The note's text; `phys_base` is what its addresses are off by.
fn note(plan: Plan) -> String {
    let phys_base = (IMAGE + plan.shift) as i64 - (BASE - 0xffff_ffff_8000_0000) as i64;
    let five = u8::from(plan.mode == PagingMode::La57);
    format!(
        "OSRELEASE={RELEASE}\nBUILD-ID=00ff\nPAGESIZE=4096\nSYMBOL(init_uts_ns)={:x}\nSYMBOL(swapper_pg_dir)={:x}\n\
         SYMBOL(_stext)={BASE:x}\nNUMBER(phys_base)={phys_base}\nNUMBER(pgtable_l5_enabled)={five}\nKERNELOFFSET=1a000000\n",
        BASE + UTS,
        BASE + ROOT,
    )
}

/// A task that is alone with another one in the list of tasks.
fn task(pid: u32, name: &str, own: u64, parent: u64, other: u64) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes[4..8].copy_from_slice(&pid.to_le_bytes());
    bytes[8..12].copy_from_slice(&pid.to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize(32, 0);
    for pointer in [own, parent, parent, other + 56, other + 56, BASE + NSPROXY] {
        bytes.extend(pointer.to_le_bytes());
    }
    bytes
}

/// A frame below the image that the machine's builder uses for its root; the kernel's own root is a copy in the image.
fn machine(plans: &[Plan]) -> (Arc<dyn PhysicalMemory>, u64) {
    let mut bytes = vec![0; 0x200_0000];
    let mut last_root = 0;
    for plan in plans {
        let mut builder = MachineBuilder::new(plan.mode, 0x8_0000).unwrap();
        for offset in [0, 0x20_0000] {
            let (virt, phys) = (VirtAddr::new(BASE + offset), PhysAddr::new(IMAGE + plan.shift + offset));
            builder.map(virt, phys, PageSize::MIB_2, entry_bits::PRESENT | entry_bits::GLOBAL).unwrap();
        }
        // The builder's tables start at zero: they are moved to where this kernel has its own.
        let tables_at = 0x20_0000 + plan.shift / 0x10;
        let root = builder.root().as_u64();
        let tables: Vec<u64> = (0..0x8000 / 8).map(|index| builder.entry(PhysAddr::new(index * 8)).unwrap()).collect();
        let moved = |entry: u64| match entry {
            entry if entry & 1 == 1 && entry & entry_bits::LARGE == 0 => entry + tables_at,
            entry => entry,
        };
        let tables: Vec<u8> = tables.into_iter().flat_map(|entry| moved(entry).to_le_bytes()).collect();
        let mut put = |at: u64, data: &[u8]| bytes[at as usize..at as usize + data.len()].copy_from_slice(data);
        put(tables_at, &tables);
        last_root = tables_at + root;

        let image = IMAGE + plan.shift;
        let btf = types();
        if plan.symbols {
            put(image, &synthetic::build(plan.order, plan.kind, &symbols(plan.kind, btf.len() as u64)).0);
        } else {
            let (idle, init) = (BASE + IDLE, BASE + INIT);
            put(image + IDLE, &task(0, "swapper/0", idle, idle, init));
            put(image + INIT, &task(1, "init", init, idle, idle));
            put(image + NSPROXY + 8, &(BASE + UTS).to_le_bytes());
        }
        put(image + BANNER, format!("Linux version {RELEASE} (test) #1\n\0").as_bytes());
        for (index, name) in ["Linux", "host", RELEASE, "#1", "x86_64", "(none)"].iter().enumerate() {
            put(image + UTS + index as u64 * 65, name.as_bytes());
        }
        put(image + ROOT, &tables[root as usize..root as usize + 0x1000]);
        put(image + CLOCK + 8, &plan.clock.to_le_bytes());
        put(image + BTF, &btf);
        if plan.trampoline {
            put(TRAMPOLINE - plan.shift / 0x800 + 0xff8, &tables[root as usize + 0xff8..root as usize + 0x1000]);
        }
        if plan.note {
            put(NOTE + plan.shift / 0x10, note(*plan).as_bytes());
        }
    }
    (memory(bytes, TargetFacts::default()), last_root)
}

fn memory(bytes: Vec<u8>, facts: TargetFacts) -> Arc<dyn PhysicalMemory> {
    let config = SourceConfig { name: "synthetic".into(), runs: RunMap::flat(bytes.len() as u64), facts };
    Arc::new(BufferMemory::new(config, bytes).unwrap())
}

/// Memory without a direct map, whose target knows something about itself.
struct Told {
    inner: Arc<dyn PhysicalMemory>,
    facts: TargetFacts,
}

impl PhysicalMemory for Told {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.inner.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.inner.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.inner.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

fn open(memory: Arc<dyn PhysicalMemory>) -> Result<Kernel> {
    Kernel::open(memory, &LinuxOptions::default())
}

fn check(kernel: &Kernel, plan: Plan) {
    assert_eq!(kernel.info.release, RELEASE);
    assert_eq!(kernel.info.version, format!("Linux version {RELEASE} (test) #1"));
    assert_eq!(kernel.info.hostname.as_deref(), Some("host"));
    assert_eq!(kernel.info.base, VirtAddr::new(BASE));
    assert_eq!(kernel.info.architecture, plan.mode.architecture().name);
    assert_eq!(kernel.symbols.address_of("init_uts_ns"), Some(VirtAddr::new(BASE + UTS)));
    assert_eq!(kernel.symbols.table().unwrap().len(), symbols(plan.kind, 0).len());
    assert_eq!(kernel.view.space().root(), PhysAddr::new(IMAGE + plan.shift + ROOT));
}

const TABLES: [(Order, Kind); 5] = [
    (Order::Old, Kind::Absolute),
    (Order::Old, Kind::Percpu),
    (Order::New, Kind::Relative),
    (Order::New, Kind::Percpu),
    (Order::Packed, Kind::Place),
];

/// Every order and encoding, in both modes.
fn plans() -> impl Iterator<Item = Plan> {
    [PagingMode::X64, PagingMode::La57]
        .into_iter()
        .flat_map(|mode| TABLES.map(|(order, kind)| Plan { mode, order, kind, ..PLAN }))
}

#[test]
fn kernel_is_found_by_its_note() {
    for plan in plans() {
        let kernel = open(machine(&[plan]).0).unwrap();
        check(&kernel, plan);
        assert_eq!(kernel.info.build_id.as_deref(), Some("00ff"));
        assert!(kernel.info.evidence[0].starts_with("VMCOREINFO at physical 0x100000"), "{:?}", kernel.info.evidence);
    }
}

#[test]
fn kernel_without_a_note_is_found_by_its_symbol_table() {
    for plan in plans() {
        let kernel = open(machine(&[Plan { note: false, ..plan }]).0).unwrap();
        check(&kernel, plan);
        assert_eq!(kernel.info.build_id, None);
    }
}

#[test]
fn kernel_is_found_by_registers_or_a_given_root() {
    for plan in plans() {
        let (inner, root) = machine(&[Plan { note: false, ..plan }]);
        let mut registers = X86Registers::default();
        registers.cr3 = Some(root | 0xfff & 0x7);
        for cr4 in [None, Some(if plan.mode == PagingMode::La57 { 1 << 12 } else { 0 })] {
            registers.cr4 = cr4;
            let mut facts = TargetFacts::default();
            facts.vcpus.push(VcpuRegisters::X86(X86Registers::default()));
            facts.vcpus.push(VcpuRegisters::X86(registers));
            let kernel = open(Arc::new(Told { inner: inner.clone(), facts })).unwrap();
            check(&kernel, plan);
            assert!(kernel.info.evidence[0].starts_with("page tables of vCPU 1"), "{:?}", kernel.info.evidence);
        }
        let options = LinuxOptions { kernel_root: Some(root), ..LinuxOptions::default() };
        check(&Kernel::open(inner, &options).unwrap(), plan);
    }
}

#[test]
fn note_that_the_target_gives_is_not_searched_for() {
    let (inner, _) = machine(&[Plan { note: false, ..PLAN }]);
    let mut facts = TargetFacts::default();
    facts.vmcoreinfo = Some(note(PLAN).into_bytes());
    let kernel = open(Arc::new(Told { inner, facts })).unwrap();
    check(&kernel, PLAN);
    assert_eq!(kernel.info.evidence.len(), 1);
    assert!(kernel.info.evidence[0].starts_with("VMCOREINFO given by the target"), "{:?}", kernel.info.evidence);
}

#[test]
fn kernel_that_ran_before_is_told_from_the_one_that_runs() {
    let later = Plan { shift: 0x80_0000, clock: 2_000, ..PLAN };
    for note in [true, false] {
        for plans in [[PLAN, later], [Plan { clock: 3_000, ..PLAN }, later]] {
            let plans = plans.map(|plan| Plan { note, ..plan });
            let newest = plans.into_iter().max_by_key(|plan| plan.clock).unwrap();
            let kernel = open(machine(&plans).0).unwrap();
            check(&kernel, newest);
            let evidence = kernel.info.evidence.join("; ");
            assert!(evidence.contains("an earlier kernel, whose clock stands at"), "{evidence}");
        }
    }
}

#[test]
fn kernel_is_found_by_its_boot_trampoline() {
    for plan in plans() {
        for note in [true, false] {
            let kernel = open(machine(&[Plan { trampoline: true, note, ..plan }]).0).unwrap();
            check(&kernel, plan);
            let evidence = &kernel.info.evidence;
            assert!(evidence[0].starts_with("boot trampoline: page tables at physical 0x9c000"), "{evidence:?}");
            assert_eq!(evidence.len(), 1);
        }
    }
}

#[test]
fn kernel_that_has_written_its_trampoline_is_the_one_that_runs() {
    // Whatever its clock says: it may not have been set yet.
    let later = Plan { shift: 0x80_0000, clock: 500, trampoline: true, ..PLAN };
    check(&open(machine(&[PLAN, later]).0).unwrap(), later);
}

#[test]
fn trampolines_of_several_kernels_decide_nothing() {
    let plan = Plan { trampoline: true, ..PLAN };
    for (first, second) in [(1_000, 2_000), (3_000, 2_000)] {
        let plans = [Plan { clock: first, ..plan }, Plan { clock: second, shift: 0x80_0000, ..plan }];
        let kernel = open(machine(&plans).0).unwrap();
        check(&kernel, plans.into_iter().max_by_key(|plan| plan.clock).unwrap());
        let evidence = kernel.info.evidence.join("; ");
        assert!(evidence.contains("page tables in the first MiB: lead to several images"), "{evidence}");
    }
}

#[test]
fn kernel_without_symbols_is_found_by_its_types_and_first_task() {
    for mode in [PagingMode::X64, PagingMode::La57] {
        for note in [false, true] {
            let kernel = open(machine(&[Plan { mode, note, symbols: false, shift: 0x60_0000, ..PLAN }]).0).unwrap();
            assert_eq!(kernel.info.release, RELEASE);
            assert_eq!(kernel.info.version, format!("Linux version {RELEASE} (test) #1"));
            assert_eq!(kernel.info.base, VirtAddr::new(BASE));
            assert_eq!(kernel.info.architecture, mode.architecture().name);
            assert_eq!(kernel.view.space().root(), PhysAddr::new(IMAGE + 0x60_0000 + ROOT));
            let known = |name: &str, offset: u64| {
                assert_eq!(kernel.symbols.address_of(name), Some(VirtAddr::new(BASE + offset)), "{name}");
            };
            known("init_task", IDLE);
            known("init_top_pgt", ROOT);
            known("__start_BTF", BTF);
            known("__stop_BTF", BTF + types().len() as u64);
            // What only the note says counts too.
            assert_eq!(kernel.symbols.address_of("swapper_pg_dir").is_some(), note);
            assert_eq!(kernel.info.build_id.as_deref(), note.then_some("00ff"));
            let error = kernel.symbols.table().unwrap_err().to_string();
            assert!(
                error.contains("the kernel's symbol table was not found: ") && error.contains("kallsyms"),
                "{error}"
            );
            let error = kernel.boot_time().unwrap_err();
            assert!(error.is_not_found() && error.to_string().contains("was not found"), "{error}");
            let evidence = kernel.info.evidence.join("; ");
            assert!(evidence.contains("no symbol table, only the addresses of _text, init_task"), "{evidence}");
        }
    }
}

#[test]
fn types_and_tasks_that_do_not_belong_together_are_refused() {
    let plan = Plan { note: false, symbols: false, ..PLAN };
    let damaged = |damage: &dyn Fn(&mut [u8])| {
        let (inner, _) = machine(&[plan]);
        let mut bytes = vec![0; 0x200_0000];
        inner.read_batch(&mut [PhysRead::new(PhysAddr::new(0), &mut bytes)]).unwrap();
        damage(&mut bytes);
        let error = open(memory(bytes, TargetFacts::default())).unwrap_err();
        assert!(matches!(error, Error::NotRecognised { .. }), "{error}");
        error.to_string()
    };
    let at = |offset: u64| (IMAGE + offset) as usize;
    let error = damaged(&|bytes| {
        bytes.copy_within(at(BTF)..at(BTF) + types().len(), 0x180_0000);
        bytes[at(BTF)] = 0;
    });
    assert!(error.contains("types (BTF) at physical 0x1800000: expected mapped at"), "{error}");
    let error = damaged(&|bytes| bytes[at(IDLE) + 4] = 1);
    assert!(error.contains("found none among 1 places of the name"), "{error}");
    let error = damaged(&|bytes| bytes[at(IDLE) + 32] ^= 8);
    assert!(error.contains("found none among 1 places of the name"), "{error}");
    let error = damaged(&|bytes| bytes[at(INIT) + 4] = 2);
    assert!(error.contains("expected process 1 after the first task, found process 2"), "{error}");
    let error = damaged(&|bytes| bytes[at(ROOT)..at(ROOT) + 0x1000].fill(0));
    assert!(error.contains("page tables at physical"), "{error}");
    let error = damaged(&|bytes| bytes[at(UTS) + 130] = b'?');
    assert!(error.contains("expected a release such as 6.1.0"), "{error}");
}

#[test]
fn several_kernels_without_symbols_are_not_guessed_among() {
    let plan = Plan { note: false, symbols: false, ..PLAN };
    let error = open(machine(&[plan, Plan { shift: 0x80_0000, ..plan }]).0).unwrap_err();
    assert!(error.to_string().starts_with("memory that holds 2 kernels is not supported: none of them has"), "{error}");
}

#[test]
fn stale_note_is_refused_and_the_kernel_found_all_the_same() {
    let (inner, _) = machine(&[PLAN]);
    let mut bytes = vec![0; 0x200_0000];
    inner.read_batch(&mut [PhysRead::new(PhysAddr::new(0), &mut bytes)]).unwrap();
    // Another release in the note than in the kernel.
    let at = NOTE as usize + "OSRELEASE=6.".len();
    bytes[at] = b'8';
    let kernel = open(memory(bytes, TargetFacts::default())).unwrap();
    check(&kernel, PLAN);
    let evidence = kernel.info.evidence.join("; ");
    assert!(evidence.contains("the note is stale or of another kernel"), "{evidence}");
    assert!(evidence.contains("kallsyms at physical"), "{evidence}");
}

#[test]
fn memory_without_a_kernel_says_what_was_looked_for() {
    for bytes in [Vec::new(), vec![0; 4096], vec![0xff; 0x30_0001], b"MZ not a kernel".repeat(1000)] {
        let len = bytes.len();
        let error = open(memory(bytes, TargetFacts::default())).unwrap_err();
        assert!(matches!(error, Error::NotRecognised { .. }), "{error}");
        let expected = match len {
            0 => "no Linux kernel found; looked for physical memory: the target holds none".to_owned(),
            _ => format!(
                "no Linux kernel found; looked for VMCOREINFO: at the start of no page of {len} bytes; kallsyms: no table of \
                 tokens in {len} bytes; BTF: no types of a kernel in {len} bytes"
            ),
        };
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn kernels_of_other_machines_are_named() {
    let open = |text: &str, facts: TargetFacts| {
        let mut bytes = vec![0; 0x4000];
        bytes[0x2000..0x2000 + text.len()].copy_from_slice(text.as_bytes());
        open(memory(bytes, facts)).unwrap_err().to_string()
    };
    let i386 =
        "OSRELEASE=6.1.0-686\nSYMBOL(init_uts_ns)=c8d629c0\nSYMBOL(swapper_pg_dir)=c8e98000\nSYMBOL(_stext)=c8000000\n";
    let error = open(i386, TargetFacts::default());
    assert!(error.starts_with("Linux 6.1.0-686 for 32-bit x86 is not supported"), "{error}");
    let arm = "OSRELEASE=6.1.0\nSYMBOL(init_uts_ns)=ffffa000081\nSYMBOL(swapper_pg_dir)=ffffa0000810000\nSYMBOL(_stext)=1\n\
               NUMBER(kimage_voffset)=0xffff800000000000\n";
    let error = open(arm, TargetFacts::default());
    assert!(error.starts_with("Linux 6.1.0 for AArch64 is not supported"), "{error}");
    let mut facts = TargetFacts::default();
    facts.machine = Some(MachineKind::AArch64);
    assert!(open("", facts).starts_with("an AArch64 machine is not supported"));
    let encrypted = note(PLAN) + "NUMBER(sme_mask)=140737488355328\n";
    let error = open(&encrypted, TargetFacts::default());
    assert!(error.contains("with encrypted memory (SME) is not supported"), "{error}");
}

#[test]
fn damaged_kernels_end_in_an_error_that_names_the_damage() {
    let damaged = |at: u64, len: usize, byte: u8| {
        let (inner, _) = machine(&[PLAN]);
        let mut bytes = vec![0; 0x200_0000];
        inner.read_batch(&mut [PhysRead::new(PhysAddr::new(0), &mut bytes)]).unwrap();
        bytes[at as usize..at as usize + len].fill(byte);
        open(memory(bytes, TargetFacts::default())).unwrap_err().to_string()
    };
    let error = damaged(IMAGE + BTF, 2, 0);
    assert_eq!(error, "Linux 6.99.0-test: types (BTF): BTF section at 0x0: expected magic number 0xeb9f, found 0x0");
    let error = damaged(IMAGE + 0x1000, 0x4000, 0x41);
    assert!(
        error.starts_with("Linux 6.99.0-test: kernel's image at 0xffffffff80000000: expected a symbol table"),
        "{error}"
    );
    // The first half of the names: their markers no longer agree.
    let error = damaged(IMAGE + 0x1010, 0x400, 0x41);
    assert!(error.contains("kallsyms at") && error.contains("expected names and markers before the tokens"), "{error}");
    let error = damaged(IMAGE + ROOT, 0x1000, 0);
    assert!(
        error.starts_with("no Linux kernel found; looked for VMCOREINFO at physical 0x100000: refused:"),
        "{error}"
    );
}

#[test]
fn memory_full_of_landmarks_or_notes_ends() {
    let error = open(memory(crate::symbols::LANDMARK.repeat(200_000), TargetFacts::default())).unwrap_err();
    assert!(matches!(error, Error::NotRecognised { .. }), "{error}");
    let mut page = note(PLAN).into_bytes();
    page.resize(4096, 0);
    let error = open(memory(page.repeat(1000), TargetFacts::default())).unwrap_err();
    assert!(matches!(error, Error::NotRecognised { .. }), "{error}");
    assert!(error.to_string().len() < 100_000);
}

#[test]
fn search_reports_progress_and_can_be_cancelled() {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let progress = move |what: &'static str, done, total| {
        counted.fetch_add(1, Ordering::Relaxed);
        assert!(done <= total && what.starts_with("looking for"));
        ControlFlow::Continue(())
    };
    let options = LinuxOptions { progress: Some(&progress), ..LinuxOptions::default() };
    let zeros = memory(vec![0; 0x800_0000], TargetFacts::default());
    assert!(Kernel::open(zeros.clone(), &options).is_err());
    assert!(calls.load(Ordering::Relaxed) >= 2);
    let options = LinuxOptions { progress: Some(&|_, _, _| ControlFlow::Break(())), ..LinuxOptions::default() };
    assert!(matches!(Kernel::open(zeros, &options), Err(Error::Cancelled)));
}
