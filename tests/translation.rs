//! Translation on the page tables of real kernels, against QEMU's own answers and against a walker that shares no code.

use std::{fs::File, sync::Arc};

use memflow_core::{
    MemoryView, MemoryViewExt, PhysAddr, PhysicalMemory, VirtAddr,
    memory::{PhysRead, VcpuRegisters, ViewRead},
    paging::{AddressSpace, Architecture, MapBudget, PageFlags, TranslateOp, Translation, x86},
    testkit::ScriptedMemory,
    view::SpaceView,
};
use memflow_guests::{CapturedGuest, monitor};
use memflow_tests::{Form, Mode, Random, Walked, Walker, guest, on_guests};

on_guests!(all [
    random_translations_agree_with_an_independent_walker
    answers_equal_those_of_qemu
    flags_equal_the_tlb_of_qemu
    batches_answer_every_address_in_few_calls
    map_of_the_space_holds_the_tlb_of_qemu
    registers_of_the_dump_give_the_mode_and_root
]);

fn mode(guest: &CapturedGuest) -> (Mode, &'static Architecture) {
    match guest.meta.levels {
        2 => (Mode::Legacy, &x86::X86),
        3 => (Mode::Pae, &x86::X86_PAE),
        4 => (Mode::Four, &x86::X64),
        5 => (Mode::Five, &x86::X64_LA57),
        levels => panic!("{levels} levels"),
    }
}

fn walker(guest: &CapturedGuest) -> Walker {
    Walker::new(File::open(guest.ram()).unwrap(), guest.meta.ram.clone())
}

/// The TLB of QEMU: every page that vCPU 0 could reach, and a good source of addresses that mean something.
fn tlb(guest: &CapturedGuest) -> Vec<monitor::TlbEntry> {
    let entries = monitor::tlb(&guest.text("tlb.txt").unwrap()).unwrap();
    assert!(entries.len() > 1000, "only {} entries", entries.len());
    entries
}

/// Addresses of every kind: mapped ones at any offset, their neighbours, user and kernel, garbage, and the ends of the space.
fn addresses(guest: &CapturedGuest, count: usize, seed: u64) -> Vec<VirtAddr> {
    let tlb = tlb(guest);
    let mut random = Random(seed);
    let wide = guest.meta.levels > 3;
    let ends =
        [0, 1, 0xfff, 0x1000, u64::from(u32::MAX), 1 << 32, u64::MAX, u64::MAX - 7, 1 << 47, (1 << 47) - 1, 1 << 56];
    (0..count)
        .map(|_| {
            let entry = random.pick(&tlb).virt;
            let value = match random.below(10) {
                0..6 => entry.wrapping_add(random.below(0x20_0000)),
                6 => entry.wrapping_sub(random.below(0x40_0000)),
                7 => *random.pick(&ends),
                // User half, or any address at all.
                8 if wide => random.next_u64() >> 17,
                8 => random.below(1 << 32),
                _ => random.next_u64(),
            };
            VirtAddr::new(if wide || random.below(8) == 0 { value } else { value & 0xffff_ffff })
        })
        .collect()
}

fn same(translation: &Translation, walked: &Walked) -> bool {
    let Translation { phys, page, flags, .. } = translation;
    let expected = [
        (PageFlags::WRITABLE, walked.writable),
        (PageFlags::USER, walked.user),
        (PageFlags::NO_EXECUTE, walked.no_execute),
        (PageFlags::ACCESSED, walked.accessed),
        (PageFlags::DIRTY, walked.dirty),
        (PageFlags::GLOBAL, walked.global),
    ];
    phys.as_u64() == walked.phys
        && page.bytes() == walked.page
        && expected.iter().all(|(flag, set)| flags.contains(*flag) == *set)
}

fn random_translations_agree_with_an_independent_walker(name: &str) {
    let guest = guest(name);
    let (mode, arch) = mode(&guest);
    let walker = walker(&guest);
    let mut roots = guest.meta.cr3.clone();
    roots.dedup();
    for form in Form::ALL {
        let memory = form.memory(&guest);
        let mut mapped = 0;
        for (index, address) in addresses(&guest, 100_000, 1).into_iter().enumerate() {
            let cr3 = roots[index % roots.len()];
            let ours = AddressSpace::new(arch, cr3).translate(&*memory, address);
            let expected = walker.walk(mode, cr3, address.as_u64());
            match (&ours, &expected) {
                (Ok(translation), Some(walked)) if same(translation, walked) => mapped += 1,
                (Err(_), None) => {}
                _ => panic!("{form:?} {address} below {cr3:#x}: {ours:?} but {expected:?}"),
            }
        }
        assert!(mapped > 30_000, "only {mapped} of the addresses are mapped");
    }
}

fn answers_equal_those_of_qemu(name: &str) {
    let guest = guest(name);
    let (_, arch) = mode(&guest);
    let space = AddressSpace::new(arch, guest.meta.monitor_cr3);
    let sample = monitor::gva2gpa_sample(&guest.text("gva2gpa.txt").unwrap()).unwrap();
    assert!(sample.len() >= 200 && sample.iter().any(|(_, answer)| answer.is_none()));
    for form in Form::ALL {
        let memory = form.memory(&guest);
        for (address, expected) in &sample {
            let ours = space.translate(&*memory, VirtAddr::new(*address)).ok().map(|found| found.phys.as_u64());
            assert_eq!(ours, *expected, "{form:?} {address:#x}");
        }
    }
}

fn flags_equal_the_tlb_of_qemu(name: &str) {
    let guest = guest(name);
    let (_, arch) = mode(&guest);
    let space = AddressSpace::new(arch, guest.meta.monitor_cr3);
    let memory = Form::Live.memory(&guest);
    for entry in tlb(&guest) {
        let found = space.translate(&*memory, VirtAddr::new(entry.virt));
        let found = found.unwrap_or_else(|reason| panic!("{:#x}: {reason}", entry.virt));
        let has = |flag| found.flags.contains(flag);
        assert_eq!(found.phys.as_u64(), entry.phys, "{:#x}", entry.virt);
        assert_eq!(has(PageFlags::ACCESSED), entry.accessed, "{entry:?}");
        assert_eq!(has(PageFlags::DIRTY), entry.dirty, "{entry:?}");
        assert_eq!(has(PageFlags::GLOBAL), entry.global, "{entry:?}");
        assert_eq!(found.page.shift() > 12, entry.large, "{entry:?}");
        // QEMU prints the bits of the last entry; rights are what every level allows.
        assert!(entry.write || !has(PageFlags::WRITABLE), "{entry:?}");
        assert!(entry.user || !has(PageFlags::USER), "{entry:?}");
        assert!(!entry.no_execute || has(PageFlags::NO_EXECUTE), "{entry:?}");
    }
}

/// Two mapped addresses whose last entries are equal: the same page by two names.
fn aliases(space: &AddressSpace, memory: &dyn PhysicalMemory, guest: &CapturedGuest) -> Vec<VirtAddr> {
    let mut by_phys: std::collections::BTreeMap<(u64, bool), Vec<VirtAddr>> = std::collections::BTreeMap::new();
    for entry in tlb(guest) {
        by_phys.entry((entry.phys, entry.large)).or_default().push(VirtAddr::new(entry.virt));
    }
    let aliased: Vec<VirtAddr> = by_phys.into_values().filter(|names| names.len() > 1).flatten().take(2000).collect();
    assert!(aliased.len() >= 2 && aliased.iter().all(|address| space.translate(memory, *address).is_ok()));
    aliased
}

fn batches_answer_every_address_in_few_calls(name: &str) {
    let guest = guest(name);
    let (_, arch) = mode(&guest);
    let space = AddressSpace::new(arch, guest.meta.monitor_cr3);
    let direct = Form::Live.memory(&guest);
    let counted = Arc::new(ScriptedMemory::new(direct.clone()));
    let levels = usize::from(guest.meta.levels);
    let view = SpaceView::new(counted.clone(), space.clone());

    let random = addresses(&guest, 100_000, 2);
    let mut sorted = random.clone();
    sorted.sort();
    let duplicates = random.iter().take(500).copied().cycle().take(20_000).collect();
    let aliased = aliases(&space, &*direct, &guest);
    let million: Vec<VirtAddr> = addresses(&guest, 1_000_000, 3);
    let one = vec![random[0]];
    for (what, batch) in [
        ("one", one),
        ("random, user and kernel mixed", random),
        ("sorted", sorted),
        ("duplicates", duplicates),
        ("aliases", aliased),
        ("a million", million),
    ] {
        let expected: Vec<_> = batch.iter().map(|address| space.translate(&*direct, *address)).collect();
        for (path, memory) in [("in place", &direct), ("called", &(counted.clone() as Arc<dyn PhysicalMemory>))] {
            let mut ops: Vec<TranslateOp> = batch.iter().map(|address| TranslateOp::new(*address)).collect();
            space.translate_batch(&**memory, &mut ops);
            for (op, expected) in ops.iter().zip(&expected) {
                assert_eq!(op.outcome.as_ref(), Some(expected), "{what} {path} {}", op.addr);
            }
        }
        let calls = counted.take_log().len();
        assert!(calls <= levels, "{what}: {calls} calls to translate {}", batch.len());

        // Reads through the view: the same addresses, one call more for the bytes.
        let mut bytes = vec![[0; 8]; batch.len()];
        let mut ops: Vec<ViewRead<'_>> =
            batch.iter().zip(&mut bytes).map(|(address, buf)| ViewRead::new(*address, buf)).collect();
        let _ = view.read_batch(&mut ops);
        let calls = counted.take_log().len();
        assert!(calls <= levels + 1, "{what}: {calls} calls to read {}", batch.len());
        for (index, (op, expected)) in ops.iter().zip(&expected).enumerate().step_by(1 + batch.len() / 5000) {
            match expected {
                Err(_) => assert!(!op.outcome.is_done(), "{what} {index}"),
                // Eight bytes may reach into a page that is not mapped, or past the end of the RAM.
                Ok(found) if found.page.bytes() - op.addr.page_offset(found.page) >= 8 => {
                    let mut alone = [0; 8];
                    let read = direct.read_batch(&mut [PhysRead::new(found.phys, &mut alone)]);
                    assert_eq!(op.outcome.is_done(), read.is_ok(), "{what} {index}");
                    assert_eq!(*op.buf, alone, "{what} {index}");
                }
                Ok(_) => {}
            }
        }
    }
}

fn map_of_the_space_holds_the_tlb_of_qemu(name: &str) {
    let guest = guest(name);
    let (_, arch) = mode(&guest);
    let space = AddressSpace::new(arch, guest.meta.monitor_cr3);
    let live = Form::Live.memory(&guest);
    for memory in [live.clone(), Arc::new(ScriptedMemory::new(live))] {
        let mut runs = Vec::new();
        let summary = space
            .map(&*memory, None, MapBudget::default(), &mut |run| {
                runs.push(run);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert!(summary.is_complete(), "{:?}", summary.holes);
        assert!(runs.is_sorted_by_key(|run| run.virt.start()));
        let tlb = tlb(&guest);
        for entry in &tlb {
            let address = VirtAddr::new(entry.virt);
            let index = runs.partition_point(|run| run.virt.last().is_some_and(|last| last < address));
            let run = runs.get(index).filter(|run| run.virt.contains(address));
            let run = run.unwrap_or_else(|| panic!("{address} is in no run"));
            let inside = address.offset_from(run.virt.start()).unwrap();
            assert_eq!(run.phys.as_u64() + inside, entry.phys, "{address}");
        }
        // QEMU prints one line per page, so the runs hold as many pages as there are lines.
        let pages: u64 = runs.iter().map(|run| run.virt.len() / run.page.bytes()).sum();
        assert_eq!(pages, tlb.len() as u64);

        let entry = &tlb[tlb.len() / 3];
        let back = space.phys_to_virt(&*memory, PhysAddr::new(entry.phys + 0x123), MapBudget::default()).unwrap();
        assert!(back.addresses.contains(&VirtAddr::new(entry.virt + 0x123)), "{entry:?}: {back:?}");
    }
}

fn registers_of_the_dump_give_the_mode_and_root(name: &str) {
    let guest = guest(name);
    let (_, arch) = mode(&guest);
    let memory = Form::Dump.memory(&guest);
    let vcpus = &memory.facts().vcpus;
    assert_eq!(vcpus.len(), guest.meta.cpus as usize);
    let monitor = monitor::registers(&guest.text("registers.txt").unwrap()).unwrap();
    for (vcpu, truth) in vcpus.iter().zip(&monitor) {
        let VcpuRegisters::X86(ours) = vcpu else { panic!("{vcpu:?}") };
        for (name, value) in [("CR0", ours.cr0), ("CR3", ours.cr3), ("CR4", ours.cr4)] {
            assert_eq!(value, truth.get(name), "{name}");
        }
        let mut registers = *ours;
        // QEMU's dump does not hold EFER; its monitor does.
        registers.efer = registers.efer.or(truth.get("EFER"));
        let space = x86::from_registers(&registers).unwrap();
        assert_eq!(space, AddressSpace::new(arch, truth.get("CR3").unwrap()));
        let rip = truth.get("RIP").or(truth.get("EIP")).unwrap();
        let view = SpaceView::new(memory.clone(), space);
        assert!(view.read::<u8>(VirtAddr::new(rip)).is_ok(), "code at {rip:#x}");
    }
}
