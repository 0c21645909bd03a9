//! What an operating system adds to the page tables.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::plan::called;
use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::{Reason, StopCause},
    memory::{PhysicalMemory, PhysicalMemoryExt},
    paging::{AddressSpace, MapBudget, MaybePhys, PageFlags, SoftFault, SoftFaultAnswer, SoftFaults, TranslateOp},
    testkit::{Machine, MachineBuilder, PagingMode, entry_bits::*},
    view::{MemoryViewExt, SpaceView},
};

/// Entries with bit 9 are pages, those with bit 10 were paged out; it counts how often it is asked.
#[derive(Default)]
struct Toy {
    calls: AtomicUsize,
    questions: AtomicUsize,
}

impl SoftFaults for Toy {
    fn resolve(&self, _memory: &dyn PhysicalMemory, faults: &mut [SoftFault]) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.questions.fetch_add(faults.len(), Ordering::Relaxed);
        for fault in faults {
            assert!(fault.stop.cause == StopCause::NotPresent && fault.stop.entry != 0);
            if fault.stop.entry & 1 << 9 != 0 {
                let base = PhysAddr::new(fault.stop.entry & 0xffff_f000);
                fault.answer =
                    SoftFaultAnswer::Page { base, flags: PageFlags::WRITABLE | PageFlags::USER | PageFlags::DIRTY };
            } else if fault.stop.entry & 1 << 10 != 0 {
                fault.answer = SoftFaultAnswer::PagedOut;
            }
        }
    }
}

/// A page, a soft page, one that was paged out, an unknown entry, and nothing, one after the other; then a soft large page.
fn machine() -> (Machine, Arc<Toy>, AddressSpace) {
    let mut builder = MachineBuilder::new(PagingMode::X64, 0x40000).unwrap();
    let mut frames = Vec::new();
    for (number, bits) in [(0, PRESENT | WRITABLE | USER), (1, 1 << 9), (2, 1 << 10), (3, 1 << 11)] {
        let frame = builder.frame().unwrap();
        builder.write(frame, &[number as u8 + 1; 0x1000]).unwrap();
        builder.map(VirtAddr::new(number << 12), frame, PageSize::KIB_4, bits).unwrap();
        frames.push(frame);
    }
    // The directory above takes away the right to write.
    let large = builder.map(VirtAddr::new(0x4000_0000), PhysAddr::new(0x4000_0000), PageSize::MIB_2, 1 << 9).unwrap();
    builder.set_entry(large.entries[2].at, 0x4000_0000 | 1 << 9).unwrap();
    let upper = builder.entry(large.entries[1].at).unwrap();
    builder.set_entry(large.entries[1].at, (upper & !WRITABLE) | NO_EXECUTE).unwrap();
    let machine = builder.build().unwrap();
    let toy = Arc::new(Toy::default());
    let space = machine.space.clone().with_soft_faults(toy.clone());
    (machine, toy, space)
}

#[test]
fn single_walk_asks_only_when_it_stopped_at_an_entry() {
    let (machine, toy, space) = machine();
    let memory = &*machine.memory;
    let at = |addr| space.translate(memory, VirtAddr::new(addr));
    assert!(at(0x123).is_ok());
    assert!(matches!(at(0x4000), Err(Reason::NotMapped(stop)) if stop.entry == 0));
    assert_eq!(toy.calls.load(Ordering::Relaxed), 0);
    let soft = at(0x1123).unwrap();
    let mut byte = [0];
    memory.read_into(soft.phys, &mut byte).unwrap();
    assert_eq!((byte, soft.phys.as_u64() & 0xfff, soft.page), ([2], 0x123, PageSize::KIB_4));
    assert_eq!(soft.flags, PageFlags::WRITABLE | PageFlags::USER | PageFlags::DIRTY);
    assert!(matches!(at(0x2000), Err(Reason::PagedOut { entry }) if entry & 1 << 10 != 0));
    assert!(matches!(at(0x3000), Err(Reason::NotMapped(stop)) if stop.cause == StopCause::NotPresent));
    let large = at(0x401f_ffff).unwrap();
    assert_eq!((large.phys, large.page, large.level), (PhysAddr::new(0x401f_ffff), PageSize::MIB_2, 2));
    assert_eq!(large.flags, PageFlags::USER | PageFlags::DIRTY | PageFlags::NO_EXECUTE);
    assert_eq!(toy.calls.load(Ordering::Relaxed), 4);
}

#[test]
fn batch_asks_once_for_all_stops() {
    let (machine, toy, space) = machine();
    let scripted = called(&machine);
    let memories: [&dyn PhysicalMemory; 2] = [&*machine.memory, &scripted];
    for memory in memories {
        let mut ops: Vec<TranslateOp> =
            (0..6).chain([0x40000, 1]).map(|number| TranslateOp::new(VirtAddr::new(number << 12))).collect();
        let before = (toy.calls.load(Ordering::Relaxed), toy.questions.load(Ordering::Relaxed));
        space.translate_batch(memory, &mut ops);
        assert_eq!(toy.calls.load(Ordering::Relaxed), before.0 + 1);
        assert_eq!(toy.questions.load(Ordering::Relaxed), before.1 + 5);
        for op in &ops {
            assert_eq!(op.outcome, Some(space.translate(memory, op.addr)), "{}", op.addr);
        }
    }
}

#[test]
fn views_read_soft_pages_and_say_what_was_paged_out() {
    let (machine, _, space) = machine();
    let memories: [Arc<dyn PhysicalMemory>; 2] = [machine.memory.clone(), Arc::new(called(&machine))];
    for memory in memories {
        let view = SpaceView::new(memory, space.clone());
        let mut bytes = [0; 0x3000];
        let error = view.read_into(VirtAddr::new(0x800), &mut bytes).unwrap_err();
        assert!(matches!(error.reason(), Some(Reason::PagedOut { .. })), "{error}");
        assert_eq!((bytes[0], bytes[0x7ff], bytes[0x800], bytes[0x17ff], bytes[0x1800]), (1, 1, 2, 2, 0));
        assert_eq!(view.read::<[u8; 4]>(VirtAddr::new(0xffe)).unwrap(), [1, 1, 2, 2]);
    }
}

#[test]
fn map_holds_soft_pages_in_their_place() {
    let (machine, _, space) = machine();
    let mut starts = Vec::new();
    let summary = space
        .map(&*machine.memory, None, MapBudget::default(), &mut |run| {
            starts.push((run.virt.start().as_u64(), run.virt.len()));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(starts, [(0, 0x1000), (0x1000, 0x1000), (0x4000_0000, 0x20_0000)]);
    assert!(summary.is_complete());
    let back = space.phys_to_virt(&*machine.memory, PhysAddr::new(0x4000_0005), MapBudget::default()).unwrap();
    assert_eq!(back.addresses, [VirtAddr::new(0x4000_0005)]);
}

#[test]
fn spaces_are_equal_when_the_same_system_answers() {
    let (machine, toy, space) = machine();
    assert_eq!(space, machine.space.clone().with_soft_faults(toy));
    assert_ne!(space, machine.space);
    assert_ne!(space, machine.space.clone().with_soft_faults(Arc::new(Toy::default())));
}

#[test]
fn short_answers_are_asked_for_at_once_too() {
    let (machine, toy, space) = machine();
    let addresses = [0x123, 0x1123, 0x2000, 0x3000, 0x4000, 0x401f_ffff].map(VirtAddr::new);
    let single = addresses.map(|addr| space.translate(&*machine.memory, addr).ok().map(|found| found.phys));
    let scripted = called(&machine);
    let here: [&dyn PhysicalMemory; 2] = [&*machine.memory, &scripted];
    for memory in here {
        let before = toy.calls.load(Ordering::Relaxed);
        let mut found = [MaybePhys::NONE; 6];
        assert_eq!(space.translate_to(memory, &addresses, &mut found), 3);
        assert_eq!(found.map(MaybePhys::get), single);
        assert_eq!(toy.calls.load(Ordering::Relaxed), before + 1);
    }
    let translator = space.over(&*machine.memory);
    assert_eq!(addresses.map(|addr| translator.phys(addr)), single);
}
