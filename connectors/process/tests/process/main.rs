//! Memory through a process, on machines built in code.

mod chain;
mod common;

use std::sync::Arc;

use common::{HOLE, OTHER, RAM, TestOs, TestProcess, machine, region};
use memflow_core::{
    Error, MemoryViewExt, PhysAddr, PhysicalMemory, Reason, VirtAddr,
    memory::{Liveness, Outcome, PhysRead, PhysWrite, PhysicalMemoryExt},
    os::RegionKind,
    paging::x86,
    testkit::{MachineBuilder, PagingMode, ScriptedMemory},
    view::SpaceView,
};
use memflow_process::{GuestRun, Options, ProcessMemory, Target, open, open_process};

fn run(phys: u64, virt: u64, len: u64) -> GuestRun {
    GuestRun { phys: PhysAddr::new(phys), virt: VirtAddr::new(virt), len }
}

fn opened(runs: &[GuestRun]) -> ProcessMemory {
    open_process(Box::new(TestProcess::new(machine())), &Options::with_runs(runs.iter().copied())).unwrap()
}

#[test]
fn inner_address_is_an_offset_in_the_mapping() {
    let memory = opened(&[run(0, RAM, 0x4000)]);
    let mut bytes = [0; 8];
    memory.read_into(PhysAddr::new(0x1ffc), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!(memory.virtual_address(PhysAddr::new(0x1ffc)), Some(VirtAddr::new(RAM + 0x1ffc)));
    assert!(memory.direct_map().is_none());
}

#[test]
fn batch_is_one_call_of_the_process_whatever_its_runs() {
    let mut builder = common::builder();
    common::fill(&mut builder);
    let machine = builder.build().unwrap();
    let scripted = Arc::new(ScriptedMemory::new(machine.memory.clone()));
    let view = SpaceView::new(scripted.clone(), machine.space.clone());
    let runs = [run(0, RAM, 0x2000), run(0x10_0000, RAM + 0x2000, 0x1000)];
    let memory = open_process(Box::new(TestProcess::new(view)), &Options::with_runs(runs)).unwrap();
    scripted.take_log();
    let (mut one, mut two, mut three) = ([0; 16], [0; 0x2000], [0; 1]);
    let mut ops = [
        PhysRead::new(PhysAddr::new(0x10_0ff0), &mut one),
        PhysRead::new(PhysAddr::new(0), &mut two),
        PhysRead::new(PhysAddr::new(0x10_0000), &mut three),
    ];
    memory.read_batch(&mut ops).unwrap();
    let levels = machine.space.architecture().levels.len();
    assert_eq!(scripted.call_count(), levels + 1, "one call a level, one for the bytes");
    assert_eq!((one, three), ([2; 16], [2]));
    assert!(two[..0x1000].iter().all(|byte| *byte == 0) && two[0x1000..].iter().all(|byte| *byte == 1));
}

#[test]
fn inner_tables_that_are_written_show_in_the_next_walk() {
    let mut builder = common::builder();
    common::fill(&mut builder);
    let (outer, space) = builder.build_writable().unwrap();
    let process = TestProcess::new(SpaceView::new(outer, space));
    let memory = open_process(Box::new(process), &Options::with_runs([run(0, RAM, 0x3000)])).unwrap();
    assert!(memory.lookaside().is_some());
    let set = |at, entry: u32| {
        memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(at), &entry.to_le_bytes())]).unwrap();
    };
    set(0, 0x1003);
    let inner = memflow_core::paging::AddressSpace::new(&x86::X86, 0);
    for frame in [0x2000, 0x0, 0x1000, 0x2000] {
        set(0x1000, frame | 3);
        for _ in 0..2 {
            let found = inner.translate(&memory, VirtAddr::new(0x10)).unwrap();
            assert_eq!(found.phys, PhysAddr::new(u64::from(frame) + 0x10));
        }
    }
}

#[test]
fn page_that_the_process_lacks_is_not_in_the_inner_image() {
    let memory = opened(&[run(0x8000, RAM, 0x6000)]);
    let mut bytes = [0xee; 0x3000];
    // The hole is the fourth page of the mapping.
    let at = 0x8000 + (HOLE - RAM) - 0x1000;
    let mut ops = [PhysRead::new(PhysAddr::new(at), &mut bytes)];
    let error = memory.read_batch(&mut ops).unwrap_err();
    let phys = PhysAddr::new(at + 0x1000);
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0x1000, reason: Reason::NotInImage { phys } });
    assert!(error.to_string().contains(&phys.to_string()), "{error}");
    // What is there arrived all the same; nothing stands in for what is not.
    assert!(bytes[..0x1000].iter().all(|byte| *byte == 2));
    assert!(bytes[0x1000..0x2000].iter().all(|byte| *byte == 0xee));
    assert!(bytes[0x2000..].iter().all(|byte| *byte == 4));
}

#[test]
fn reason_of_another_kind_is_kept() {
    let machine = machine();
    let failing = machine.space.translate(&*machine.memory, VirtAddr::new(RAM + 0x1000)).unwrap().phys;
    let range = memflow_core::PhysRange::new(failing, 1).unwrap();
    let scripted = ScriptedMemory::new(machine.memory.clone()).with_failing_addresses(range);
    let view = SpaceView::new(Arc::new(scripted), machine.space.clone());
    let options = Options::with_runs([run(0, RAM, 0x3000)]);
    let memory = open_process(Box::new(TestProcess::new(view)), &options).unwrap();
    let mut bytes = [0; 0x2000];
    let mut ops = [PhysRead::new(PhysAddr::new(0x800), &mut bytes)];
    assert!(memory.read_batch(&mut ops).is_err());
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0x800, reason: Reason::Io { errno: 5 } });
}

#[test]
fn silent_memory_below_is_an_error() {
    let machine = machine();
    // Translation takes a call a level; the next one is for the bytes.
    let levels = machine.space.architecture().levels.len() as u64;
    let scripted = ScriptedMemory::new(machine.memory.clone()).with_silent_call(levels);
    let view = SpaceView::new(Arc::new(scripted), machine.space.clone());
    let options = Options::with_runs([run(0, RAM, 0x3000)]);
    let memory = open_process(Box::new(TestProcess::new(view)), &options).unwrap();
    let error = memory.read_into(PhysAddr::new(0), &mut [0; 4]).unwrap_err();
    assert!(matches!(error, Error::Unanswered { .. }), "{error}");
}

#[test]
fn edges_of_runs_and_of_the_address_space_are_exact() {
    let memory = opened(&[run(0x1000, RAM, 0x1000), run(u64::MAX - 0xfff, RAM + 0x1000, 0x1000)]);
    let failure = |addr: u64, len: usize| {
        let mut bytes = vec![0; len];
        let mut ops = [PhysRead::new(PhysAddr::new(addr), &mut bytes)];
        let _ = memory.read_batch(&mut ops);
        ops[0].outcome
    };
    let gap = |offset, phys| Outcome::Failed { offset, reason: Reason::NotInImage { phys: PhysAddr::new(phys) } };
    assert_eq!(failure(0x5000, 0), Outcome::Done);
    assert_eq!(failure(0x1000, 0x1000), Outcome::Done);
    assert_eq!(failure(0xfff, 2), gap(0, 0xfff));
    assert_eq!(failure(0x1fff, 2), gap(1, 0x2000));
    assert_eq!(failure(u64::MAX, 1), Outcome::Done);
    assert_eq!(failure(u64::MAX, 2), Outcome::Failed { offset: 1, reason: Reason::OutOfRange });
    assert_eq!(memory.virtual_address(PhysAddr::new(u64::MAX)), Some(VirtAddr::new(RAM + 0x1fff)));
    assert!(memory.read_batch(&mut []).is_ok());
}

#[test]
fn writes_go_through_where_the_outer_memory_takes_them() {
    let mut builder = common::builder();
    common::fill(&mut builder);
    let (outer, space) = builder.build_writable().unwrap();
    let view = SpaceView::new(outer, space);
    let options = Options::with_runs([run(0, RAM, 0x4000)]);
    let memory = open_process(Box::new(TestProcess::new(view.clone())), &options).unwrap();
    assert!(!memory.metadata().read_only);
    let hole = PhysAddr::new(HOLE - RAM);
    let mut ops = [PhysWrite::new(PhysAddr::new(0xffe), b"inner"), PhysWrite::new(hole.wrapping_sub(2), b"lost")];
    assert!(memory.write_batch(&mut ops).unwrap_err().is_not_in_image());
    assert_eq!(ops[0].outcome, Outcome::Done);
    assert_eq!(ops[1].outcome, Outcome::Failed { offset: 2, reason: Reason::NotInImage { phys: hole } });
    let mut bytes = [0; 5];
    view.read_into(VirtAddr::new(RAM + 0xffe), &mut bytes).unwrap();
    assert_eq!(&bytes, b"inner");
}

#[test]
fn read_only_outer_memory_makes_the_inner_one_read_only() {
    let memory = opened(&[run(0, RAM, 0x3000)]);
    let metadata = memory.metadata();
    assert!(metadata.read_only);
    assert_eq!(metadata.liveness, Liveness::Frozen);
    assert_eq!(&*metadata.name, "process monitor (612)");
    let mut ops = [PhysWrite::new(PhysAddr::new(0), b"x")];
    assert!(memory.write_batch(&mut ops).is_err());
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0, reason: Reason::ReadOnly });
}

#[test]
fn largest_writable_mapping_is_the_ram() {
    let process = TestProcess::new(machine()).with_regions(vec![
        region(0x40_0000, 0x20_0000, "r-xp", RegionKind::Anonymous),
        region(OTHER, 0x2000, "rw-p", RegionKind::Anonymous),
        region(0x5000_0000, 0x10_0000, "rw-p", RegionKind::Special { name: "[heap]".into() }),
        region(RAM, 0x4000, "rw-s", RegionKind::Anonymous),
    ]);
    let memory = open_process(Box::new(process), &Options::default()).unwrap();
    assert_eq!(memory.virtual_address(PhysAddr::new(0x3fff)), Some(VirtAddr::new(RAM + 0x3fff)));
    assert_eq!(memory.metadata().runs.total_bytes(), 0x4000);
}

/// The error of opening without runs, where the process has these writable mappings.
fn refusal(regions: &[(u64, u64)]) -> String {
    let regions = regions.iter().map(|(start, len)| region(*start, *len, "rw-p", RegionKind::Anonymous)).collect();
    let process = TestProcess::new(machine()).with_regions(regions);
    open_process(Box::new(process), &Options::default()).unwrap_err().to_string()
}

#[test]
fn layout_that_is_not_certain_is_refused_with_the_way_out() {
    for (regions, expected) in [
        (&[][..], "found `no writable mapping`"),
        (&[(RAM, 0x3000), (OTHER, 0x3000)], "found `2 mappings of 12288 bytes, the first at 0x7f0000000000-"),
        (&[(RAM, 0xb000_0000)], "less than 0xb0000000 bytes"),
    ] {
        let error = refusal(regions);
        assert!(error.starts_with("memory in process monitor (612): "), "{error}");
        assert!(error.contains(expected) && error.contains("name the runs of guest memory"), "{error}");
    }
}

#[test]
fn torn_memory_map_is_an_error_and_not_a_guess() {
    let process = TestProcess::new(machine())
        .with_regions(vec![region(RAM, 0x4000, "rw-p", RegionKind::Anonymous)])
        .with_map_problem("of the rest");
    let error = open_process(Box::new(process), &Options::default()).unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[test]
fn runs_that_cannot_be_are_refused() {
    let refused = |runs: &[GuestRun]| {
        let options = Options::with_runs(runs.iter().copied());
        let error = open_process(Box::new(TestProcess::new(machine())), &options).unwrap_err();
        assert!(error.to_string().starts_with("memory in process monitor (612): "), "{error}");
        error
    };
    let overlap = refused(&[run(0, RAM, 0x2000), run(0x1fff, OTHER, 0x1000)]);
    assert!(matches!(overlap.root_cause(), Error::Overlap { .. }), "{overlap}");
    for outside in [run(u64::MAX, RAM, 2), run(0, u64::MAX, 2), run(0, 0x7fff_ffff_f000, u64::MAX)] {
        let error = refused(&[outside]);
        assert!(matches!(error.root_cause(), Error::Range { .. }), "{error}");
    }
    let empty = refused(&[run(0, RAM, 0)]);
    assert!(matches!(empty.root_cause(), Error::Argument { .. }), "{empty}");
}

#[test]
fn one_mapping_may_be_seen_at_two_addresses() {
    let memory = opened(&[run(0, RAM + 0x1000, 0x1000), run(0x10_0000, RAM + 0x1000, 0x1000)]);
    for at in [0, 0x10_0000] {
        let mut byte = [0];
        memory.read_into(PhysAddr::new(at), &mut byte).unwrap();
        assert_eq!(byte, [1]);
    }
}

#[test]
fn range_beyond_a_narrow_process_is_refused() {
    let builder = MachineBuilder::new(PagingMode::X86, 0x4000).unwrap();
    let machine = builder.build().unwrap();
    assert_eq!(machine.space.architecture().levels.len(), x86::X86.levels.len());
    let options = Options::with_runs([run(0, 0xffff_f000, 0x1001)]);
    let error = open_process(Box::new(TestProcess::new(machine.view())), &options).unwrap_err();
    assert!(matches!(error.root_cause(), Error::Range { .. }), "{error}");
}

#[test]
fn thread_of_the_kernel_holds_no_machine() {
    let process = TestProcess::new(machine()).without_space();
    let error = open_process(Box::new(process), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("threads of the kernel hold no machine"), "{error}");
}

#[test]
fn process_is_found_by_pid_and_by_a_name_that_only_it_has() {
    let os = TestOs::new(machine(), &[(612, "monitor"), (613, "twin"), (614, "twin")]);
    let options = Options::with_runs([run(0, RAM, 0x3000)]);
    let name = |name: &str| open(&os, &Target::Name(name.to_owned()), &options);
    assert_eq!(name("monitor").unwrap().process().info().pid, 612);
    assert_eq!(open(&os, &Target::Pid(614), &options).unwrap().process().info().pid, 614);
    assert_eq!(name("absent").unwrap_err().to_string(), "no process absent in this target");
    assert_eq!(
        name("twin").unwrap_err().to_string(),
        "process: expected the name of one process, or a pid; the processes 613, 614 have this name, found `twin`"
    );
    assert!(open(&os, &Target::Pid(1), &options).unwrap_err().is_not_found());
}

#[test]
fn name_in_a_list_with_problems_is_not_taken_for_the_only_one() {
    let os = TestOs::new(machine(), &[(612, "monitor")]).with_problem();
    let options = Options::with_runs([run(0, RAM, 0x3000)]);
    let error = open(&os, &Target::Name("monitor".to_owned()), &options).unwrap_err();
    assert!(error.to_string().contains("its pid finds it anyway"), "{error}");
    assert!(open(&os, &Target::Pid(612), &options).is_ok());
}
