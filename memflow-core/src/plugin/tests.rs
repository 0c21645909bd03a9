use std::{
    ffi::c_void,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use memflow_abi::{FailureSink, Grows, Memory, MemoryTable};
use proptest::prelude::*;

use super::{export, import};
use crate::{
    address::{PhysAddr, PhysRange, VirtAddr},
    error::{Error, ErrorKind, Reason, Result},
    memory::{
        AArch64Registers, BufferMemory, BugCheck, ByteSource, Control, Liveness, Metadata, Outcome, Pause, PhysRead,
        PhysWrite, PhysicalMemory, PhysicalMemoryExt, PositionedMemory, Run, RunMap, RunState, SourceConfig,
        TargetFacts, VcpuRegisters, WindowsFacts, X86Registers,
    },
    testkit::{LockedMemory, SwitchedMemory},
};

/// The same memory, as the other side of the ABI sees it.
fn across(memory: Arc<dyn PhysicalMemory>) -> Arc<dyn PhysicalMemory> {
    // SAFETY: the handle was just made and is handed over.
    unsafe { import::memory(export::memory(memory), "the other side") }.unwrap()
}

fn buffer(len: usize) -> Arc<BufferMemory> {
    let runs = [(0x1000, 0), (0x8000, 0x1000)]
        .map(|(start, offset)| Run { range: PhysRange::new(PhysAddr::new(start), 0x1000).unwrap(), offset });
    let mut registers = X86Registers::default();
    (registers.cr3, registers.rip) = (Some(0x1234_5000), Some(u64::MAX));
    let facts = TargetFacts {
        machine: Some(crate::memory::MachineKind::X86_64),
        vcpus: vec![VcpuRegisters::X86(registers), VcpuRegisters::X86(X86Registers::default())],
        vmcoreinfo: Some(b"OSRELEASE=1\n".to_vec()),
        ..TargetFacts::default()
    };
    let config = SourceConfig { name: "buffer".into(), runs: RunMap::new(runs).unwrap(), facts };
    let bytes: Vec<u8> = (0..len).map(|index| (index * 7 + index / 256) as u8).collect();
    Arc::new(BufferMemory::new(config, bytes).unwrap())
}

#[test]
fn what_a_target_says_of_itself_comes_across() {
    let here = buffer(0x2000);
    let there = across(across(here.clone()));
    let (one, other) = (here.metadata(), there.metadata());
    assert_eq!(
        (&one.name, &one.runs, one.liveness, one.read_only, one.ideal_batch),
        (&other.name, &other.runs, other.liveness, other.read_only, other.ideal_batch)
    );
    assert_eq!(here.facts(), there.facts());
    assert_eq!(here.populated_runs(), there.populated_runs());
    assert_eq!(there.excluded_runs(), Arc::default());
}

#[test]
fn what_was_left_out_comes_across() {
    struct Zeros;
    impl ByteSource for Zeros {
        fn read_at(&self, _: u64, buf: &mut [u8]) -> std::io::Result<usize> {
            buf.fill(0);
            Ok(buf.len())
        }
    }
    let runs = |start| {
        let range = PhysRange::new(PhysAddr::new(start), 0x1000).unwrap();
        RunMap::new([Run { range, offset: 0 }]).unwrap()
    };
    let config = SourceConfig { name: "dump".into(), runs: runs(0x1000), facts: TargetFacts::default() };
    let here = PositionedMemory::new(config, Zeros, Liveness::Frozen, true).with_excluded(runs(0x4000));
    let here: Arc<dyn PhysicalMemory> = Arc::new(here);
    let there = across(here.clone());
    assert_eq!(there.excluded_runs().to_string(), here.excluded_runs().to_string());
    assert!(!there.excluded_runs().is_empty());
}

#[test]
fn headers_of_dumps_come_across_as_facts() {
    let whole = WindowsFacts {
        build: 19041,
        pae: Some(false),
        processors: Some(4),
        debugger_data: Some(VirtAddr::new(u64::MAX)),
        loaded_modules: Some(VirtAddr::new(1)),
        active_processes: Some(VirtAddr::new(2)),
        pfn_database: Some(VirtAddr::new(0)),
        bug_check: Some(BugCheck { code: u32::MAX, parameters: [5, 6, 7, u64::MAX] }),
        system_time: Some(3),
    };
    let empty = WindowsFacts { build: 0, ..WindowsFacts::default() };
    for (directory_table, windows) in
        [(Some(0), Some(whole)), (None, Some(empty)), (Some(u64::MAX), None), (None, None)]
    {
        let facts = TargetFacts { directory_table, windows, ..TargetFacts::default() };
        let config = SourceConfig { name: "dump".into(), runs: RunMap::flat(16), facts };
        let here = Arc::new(BufferMemory::new(config, vec![0; 16]).unwrap());
        assert_eq!(here.facts(), across(across(here.clone())).facts());
    }
}

#[test]
fn registers_of_arm_vcpus_come_across_as_facts() {
    let registers =
        AArch64Registers { ttbr1_el1: Some(0x4123_4000), pc: Some(u64::MAX), ..AArch64Registers::default() };
    let facts = TargetFacts {
        machine: Some(crate::memory::MachineKind::AArch64),
        vcpus: vec![VcpuRegisters::AArch64(registers), VcpuRegisters::AArch64(AArch64Registers::default())],
        ..TargetFacts::default()
    };
    let config = SourceConfig { name: "arm".into(), runs: RunMap::flat(16), facts };
    let here = Arc::new(BufferMemory::new(config, vec![0; 16]).unwrap());
    assert_eq!(here.facts(), across(across(here.clone())).facts());
}

/// A target that does not stop when it is asked for the third time, and panics when it is asked again.
fn unwilling() -> Arc<SwitchedMemory<BufferMemory>> {
    let mut pauses = 0;
    let memory = SwitchedMemory::new(Arc::into_inner(buffer(0x2000)).unwrap(), true).on_switch(move |_, running| {
        pauses += usize::from(!running);
        match pauses {
            3 if !running => Err(Error::Unsupported { what: "stopping".into(), why: "enough".into() }),
            4.. if !running => panic!("on purpose"),
            _ => Ok(()),
        }
    });
    // Of both kinds, which no machine has: the order is that of the connector.
    let x86 = X86Registers { rip: Some(7), ..X86Registers::default() };
    Arc::new(memory.with_registers(vec![VcpuRegisters::AArch64(AArch64Registers::default()), VcpuRegisters::X86(x86)]))
}

#[test]
fn control_comes_across() {
    let here = unwilling();
    let there = across(across(here.clone()));
    let control = there.control().unwrap();
    assert_eq!(control.run_state().unwrap(), RunState::Running);
    control.pause().unwrap();
    assert_eq!((control.run_state().unwrap(), here.run_state().unwrap()), (RunState::Paused, RunState::Paused));
    assert_eq!(control.registers().unwrap(), here.registers().unwrap());
    control.resume().unwrap();
    assert_eq!(control.run_state().unwrap(), RunState::Running);

    let pause = Pause::new(there.clone()).unwrap();
    assert_eq!(here.run_state().unwrap(), RunState::Paused);
    drop(pause);
    assert_eq!(here.run_state().unwrap(), RunState::Running);

    let refused = Pause::new(there.clone()).unwrap_err();
    assert_eq!(
        (refused.kind(), refused.to_string()),
        (ErrorKind::Unsupported, "stopping is not supported: enough".to_owned())
    );
    let panicked = Pause::new(there).unwrap_err();
    assert_eq!(panicked.kind(), ErrorKind::Panic);
    assert_eq!(here.run_state().unwrap(), RunState::Running);
}

#[test]
fn memory_without_control_has_none_on_the_other_side() {
    assert!(across(buffer(0x2000)).control().is_none());
}

#[test]
fn direct_map_is_the_same_bytes_at_the_same_place() {
    let here = buffer(0x2000);
    let there = across(here.clone());
    let places = |memory: &dyn PhysicalMemory| -> Vec<_> {
        memory.direct_map().unwrap().regions().iter().map(|region| (region.range, region.ptr)).collect()
    };
    assert_eq!(places(&*here), places(&*there));
    let (mut one, mut other) = ([0; 64], [1; 64]);
    here.read_into(PhysAddr::new(0x8100), &mut one).unwrap();
    drop(here);
    there.read_into(PhysAddr::new(0x8100), &mut other).unwrap();
    assert_eq!(one, other);
}

/// Memory that counts its calls and has no direct map.
struct Counted {
    memory: Arc<dyn PhysicalMemory>,
    calls: AtomicUsize,
}

impl PhysicalMemory for Counted {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.memory.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.memory.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.memory.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.memory.facts()
    }
}

proptest! {
    #[test]
    fn batches_give_the_same_bytes_and_outcomes_as_here(ops in prop::collection::vec((0u64..0xa000, 0usize..0x1800), 0..40)) {
        let here = buffer(0x2000);
        let counted = Arc::new(Counted { memory: here.clone(), calls: AtomicUsize::new(0) });
        let there = across(counted.clone());
        let run = |memory: &dyn PhysicalMemory| {
            let mut buffers: Vec<Vec<u8>> = ops.iter().map(|(_, len)| vec![0xee; *len]).collect();
            let mut reads: Vec<PhysRead<'_>> =
                ops.iter().zip(&mut buffers).map(|((at, _), buf)| PhysRead::new(PhysAddr::new(*at), buf)).collect();
            let result = memory.read_batch(&mut reads).map_err(|error| error.to_string());
            let outcomes: Vec<Outcome> = reads.iter().map(|op| op.outcome).collect();
            (result, outcomes, buffers)
        };
        prop_assert_eq!(run(&*here), run(&*there));
        prop_assert_eq!(counted.calls.load(Ordering::Relaxed), usize::from(!ops.is_empty()));
    }
}

#[test]
fn writes_come_across_with_their_outcomes() {
    let scripted: Arc<dyn PhysicalMemory> = Arc::new(LockedMemory::new(RunMap::flat(0x3000), vec![0; 0x3000]).unwrap());
    let there = across(scripted.clone());
    let outcome = |memory: &dyn PhysicalMemory, at: u64| {
        let mut ops = [PhysWrite::new(PhysAddr::new(at), &[1, 2, 3, 4])];
        let result = memory.write_batch(&mut ops).map_err(|error| error.to_string());
        (result, ops.map(|op| op.outcome))
    };
    for at in [0x100, 0x2ffe, 0x3000] {
        assert_eq!(outcome(&*there, at), outcome(&*scripted, at), "{at:#x}");
    }
    let read_only = across(buffer(0x2000));
    let (result, [outcome]) = outcome(&*read_only, 0x1000);
    assert!(result.is_err());
    assert_eq!(outcome, Outcome::Failed { offset: 0, reason: Reason::ReadOnly });
}

/// Memory whose code panics when it is read.
struct Panicking(Arc<BufferMemory>);

impl PhysicalMemory for Panicking {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        for op in ops {
            op.outcome = Outcome::Done;
        }
        panic!("on purpose");
    }

    fn write_batch(&self, _: &mut [PhysWrite<'_>]) -> Result<()> {
        panic!("on purpose");
    }

    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.0.facts()
    }
}

#[test]
fn panic_behind_the_boundary_is_told_by_each_operation() {
    let there = across(Arc::new(Panicking(buffer(0x2000))));
    let mut buf = [0; 8];
    let mut ops = [PhysRead::new(PhysAddr::new(0x1000), &mut buf)];
    let error = there.read_batch(&mut ops).unwrap_err();
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0, reason: Reason::Panicked });
    assert_eq!(
        error.to_string(),
        "the other side: read of 8 bytes at physical 0x1000: the code of the plugin panicked; the log says where"
    );
}

unsafe extern "C" fn says_nothing(_: *mut c_void, _: FailureSink) -> i32 {
    0
}

#[test]
fn tables_that_cannot_be_used_are_errors_that_say_why() {
    let refused = |change: fn(&mut MemoryTable)| {
        let handle = export::memory(buffer(0x2000));
        // SAFETY: the table of the handle is whole.
        let mut table = unsafe { handle.table.ptr.read() };
        change(&mut table);
        let changed = Memory { context: handle.context, table: Grows::new(&table) };
        // SAFETY: the functions that are left are those of the handle.
        let error = unsafe { import::memory(changed, "it") }.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Contract);
        error.to_string()
    };
    assert!(refused(|table| table.read = None).contains("function `read` is missing"));
    assert!(refused(|table| table.info = None).contains("function `info` is missing"));
    let half = |table: &mut MemoryTable| table.pause = Some(says_nothing);
    assert!(refused(half).contains("function `run_state` is missing"));
    assert!(refused(|table| table.header.size = 4).contains("table of its memory cannot be used"));
    assert!(refused(|table| table.header.major += 1).contains("table of its memory cannot be used"));
}

#[test]
fn handles_are_cloned_and_dropped_from_any_thread() {
    let counted = Arc::new(Counted { memory: buffer(0x2000), calls: AtomicUsize::new(0) });
    let there = across(counted.clone());
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let there = there.clone();
            scope.spawn(move || {
                let again = across(there);
                let mut byte = [0];
                for offset in 0..100 {
                    again.read_into(PhysAddr::new(0x1000 + thread * 100 + offset), &mut byte).unwrap();
                }
            });
        }
    });
    assert_eq!(counted.calls.load(Ordering::Relaxed), 400);
    drop(there);
    assert_eq!(Arc::strong_count(&counted), 1);
}

#[test]
fn silent_progress_never_stops() {
    assert_eq!(super::definition::SILENT("stage", 1, 2), ControlFlow::Continue(()));
}
