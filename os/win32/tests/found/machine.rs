//! Generated machines as physical memory: their pages, and the facts that a connector might know of them.
//!
//! Owns: [`Image`], the machines that the tests are about. Must not know: how anything in them is found.

use std::sync::{Arc, OnceLock};

use memflow_core::{
    PhysAddr, PhysRange, PhysicalMemory, Reason, Result, VirtAddr,
    memory::{
        Liveness, MachineKind, Metadata, PhysRead, PhysWrite, Run, RunMap, TargetFacts, VcpuRegisters, WindowsFacts,
        X86Registers, finish_reads, finish_writes,
    },
};
use memflow_windows_images::{
    Account, Architecture, Description, OffsetTable, Offsets, ProcessDescription, Windows, windows_7_x86,
    windows_10_18362_x86, windows_10_19041_x86,
};

const PAGE: u64 = 0x1000;

/// A GUID that no table has.
pub(crate) const UNKNOWN: &str = "0123456789ABCDEF0123456789ABCDEF";

/// The memory of a generated machine, read as a device is: nothing lies in this process for all that the layer knows.
pub(crate) struct Image {
    windows: Arc<Windows>,
    runs: Arc<RunMap>,
    populated: Arc<RunMap>,
    facts: TargetFacts,
}

impl Image {
    pub(crate) fn memory(windows: Arc<Windows>, facts: TargetFacts) -> Arc<dyn PhysicalMemory> {
        let runs = Arc::new(run_map(&windows.runs()));
        let populated = Arc::new(run_map(&windows.touched()));
        Arc::new(Self { windows, runs, populated, facts })
    }
}

fn run_map(frames: &[std::ops::Range<u64>]) -> RunMap {
    let runs = frames.iter().map(|run| {
        let start = PhysAddr::new(run.start * PAGE);
        Run { range: PhysRange::new(start, (run.end - run.start) * PAGE).unwrap(), offset: start.as_u64() }
    });
    RunMap::new(runs).unwrap()
}

impl PhysicalMemory for Image {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        for op in &mut *ops {
            op.outcome = memflow_core::memory::Outcome::Done;
            let mut done = 0;
            while done < op.buf.len() {
                let at = op.addr.as_u64().saturating_add(done as u64);
                let len = (op.buf.len() - done).min((PAGE - at % PAGE) as usize);
                match self.windows.read(at, len) {
                    Some(bytes) => op.buf[done..done + len].copy_from_slice(&bytes),
                    None => op.outcome.fail(done as u64, Reason::NotInImage { phys: PhysAddr::new(at) }),
                }
                done += len;
            }
        }
        finish_reads("a generated machine", ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        finish_writes("a generated machine", ops)
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            name: "a generated machine".into(),
            runs: self.runs.clone(),
            liveness: Liveness::Frozen,
            read_only: true,
            ideal_batch: 64,
        }
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        self.populated.clone()
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }
}

/// A kind of machine: processor and build.
pub(crate) fn kinds() -> Vec<(Architecture, Offsets)> {
    let table = OffsetTable::embedded().unwrap();
    let mut kinds = vec![
        (Architecture::X86, windows_7_x86()),
        (Architecture::Pae, windows_7_x86()),
        (Architecture::Pae, windows_10_18362_x86()),
        (Architecture::Pae, windows_10_19041_x86()),
    ];
    for (number, offsets) in table.families().into_iter().enumerate() {
        let architecture = if number % 2 == 0 { Architecture::X64 } else { Architecture::X64Shadow };
        kinds.push((architecture, offsets.clone()));
    }
    kinds
}

/// A machine with the usual processes, one of 32-bit code where there are such, one in a sandbox, and one that has ended.
pub(crate) fn description(seed: u64, architecture: Architecture, offsets: Offsets) -> Description {
    let wide = offsets.wide;
    let mut description = Description::new(seed, architecture, offsets);
    description.ram = 128 << 20;
    let mut game = ProcessDescription::new(5000, 2096, r"C:\Program Files (x86)\Game\a game with a long name.exe");
    game.wow64 = wide;
    let mut browser = ProcessDescription::new(5204, 2096, r"C:\Program Files\Browser\browser.exe");
    browser.account = Account::Sandbox;
    browser.threads = 5;
    let mut ended = ProcessDescription::new(5400, 2096, r"C:\Windows\System32\cmd.exe");
    ended.ended = true;
    description.process(game).process(browser).process(ended)
}

/// One machine of each kind, made once.
pub(crate) fn machines() -> &'static [(Offsets, Arc<Windows>)] {
    static MACHINES: OnceLock<Vec<(Offsets, Arc<Windows>)>> = OnceLock::new();
    MACHINES.get_or_init(|| {
        let build = |(seed, (architecture, offsets)): (u64, (Architecture, Offsets))| {
            let description = description(seed, architecture, offsets.clone());
            (offsets, Arc::new(description.build().unwrap()))
        };
        (100..).zip(kinds()).map(build).collect()
    })
}

/// What a connector may know of a machine.
pub(crate) fn facts(windows: &Windows, choose: impl Fn(&mut TargetFacts, &Windows, &mut X86Registers)) -> TargetFacts {
    let mut facts = TargetFacts::default();
    let mut registers = X86Registers::default();
    choose(&mut facts, windows, &mut registers);
    if registers != X86Registers::default() {
        facts.vcpus.push(VcpuRegisters::X86(registers));
    }
    facts
}

/// What the header of a crash dump says.
pub(crate) fn dump_header(facts: &mut TargetFacts, windows: &Windows) {
    let truth = &windows.truth;
    let symbol = |name: &str| truth.kernel.symbols.get(name).map(|address| VirtAddr::new(*address));
    let mut header = WindowsFacts::default();
    header.build = truth.kernel.version.build.into();
    header.debugger_data = truth.kernel.kdbg.as_ref().map(|kdbg| VirtAddr::new(kdbg.address));
    header.loaded_modules = symbol("PsLoadedModuleList");
    header.active_processes = symbol("PsActiveProcessHead");
    facts.windows = Some(header);
    facts.directory_table = Some(truth.dtb);
    facts.machine = Some(match truth.paging {
        memflow_windows_images::Paging::Four => MachineKind::X86_64,
        _ => MachineKind::X86,
    });
}
