//! A captured guest agrees with itself: what it said, what QEMU said and what lies in its RAM are the same machine.
//!
//! Expected values: the guest's pagemap and files, QEMU's `info tlb` and `gva2gpa`. Nothing here walks a page table.

use std::fs::File;
use std::os::unix::fs::FileExt;

use memflow_guests::monitor::{gva2gpa_sample, registers, tlb};
use memflow_guests::{CapturedGuest, Guests, known_text};

/// Four levels; five levels with the PC's hole in RAM; 32 bits with 64-bit entries; 32 bits with two levels.
const NAMES: [&str; 4] = ["amd64-6.12-4level-pti", "amd64-6.12-5level-pti", "i386-6.1-pae", "i386-6.1-legacy"];

fn each(check: impl Fn(CapturedGuest)) {
    let guests = Guests::locate().unwrap();
    for name in NAMES {
        check(guests.ensure(name).unwrap());
    }
}

/// Bytes of RAM at a physical address.
fn read(guest: &CapturedGuest, phys: u64, len: usize) -> Vec<u8> {
    let run = guest.meta.ram.iter().find(|run| phys >= run.phys && phys - run.phys < run.len).unwrap();
    let mut bytes = vec![0; len];
    File::open(guest.ram()).unwrap().read_exact_at(&mut bytes, run.offset + (phys - run.phys)).unwrap();
    bytes
}

#[test]
fn the_known_file_lies_in_ram_where_the_pagemap_says() {
    each(|guest| {
        let worker = guest.truth.process_named("worker-pool").unwrap();
        let mapping =
            guest.truth.maps(worker.pid).unwrap().into_iter().find(|one| one.name == "/etc/known.txt").unwrap();
        let pages = guest.truth.pages(worker.pid).unwrap();
        let text = known_text();
        for index in 0..4 {
            let virt = mapping.start + index * 4096;
            let page = pages.iter().find(|page| page.virt == virt).unwrap();
            let from = usize::try_from(index).unwrap() * 4096;
            assert_eq!(read(&guest, page.phys, 4096), &text.as_bytes()[from..from + 4096], "page {index}");
        }
    });
}

#[test]
fn the_secret_lies_on_the_workers_stack() {
    each(|guest| {
        let worker = guest.truth.process_named("worker-pool").unwrap();
        let secret = "MEMFLOW_SECRET=correct-horse-battery-staple";
        assert!(guest.truth.environ(worker.pid).unwrap().iter().any(|one| one == secret));
        let stack = guest.truth.maps(worker.pid).unwrap().into_iter().find(|one| one.name == "[stack]").unwrap();
        let pages = guest.truth.pages(worker.pid).unwrap();
        let mut stack_pages = pages.iter().filter(|page| (stack.start..stack.end).contains(&page.virt));
        let needle = secret.as_bytes();
        assert!(
            stack_pages.any(|page| read(&guest, page.phys, 4096).windows(needle.len()).any(|bytes| bytes == needle))
        );
    });
}

#[test]
fn single_answers_of_qemu_agree_with_its_list() {
    each(|guest| {
        let mut entries = tlb(&guest.text("tlb.txt").unwrap()).unwrap();
        entries.sort_by_key(|entry| entry.virt);
        let sample = gva2gpa_sample(&guest.text("gva2gpa.txt").unwrap()).unwrap();
        assert!(sample.len() >= 250, "{}", sample.len());
        assert!(sample.iter().filter(|(_, phys)| phys.is_none()).count() > 10);
        assert!(sample.iter().filter(|(_, phys)| phys.is_some()).count() > 150);
        for (virt, phys) in sample.into_iter().filter_map(|(virt, phys)| Some((virt, phys?))) {
            // The list has one line a page whose size it does not say; the nearest start below is the page.
            let entry = entries[entries.partition_point(|entry| entry.virt <= virt) - 1];
            assert_eq!(entry.phys + (virt - entry.virt), phys, "{}: {virt:#x}", guest.meta.name);
        }
    });
}

#[test]
fn the_cast_is_as_its_program_says() {
    each(|guest| {
        let truth = &guest.truth;
        let worker = truth.process_named("worker-pool").unwrap();
        assert_eq!((worker.uid, worker.gid, worker.threads, worker.kernel_thread), (1000, 1000, 6, false));
        assert_eq!(worker.arguments(), ["worker-pool", "--threads", "5", "an argument with spaces", "", "last"]);
        let threads: Vec<String> = truth.threads(worker.pid).unwrap().into_iter().map(|thread| thread.name).collect();
        assert_eq!(threads, ["worker-pool", "worker-0", "worker-1", "worker-2", "worker-3", "ticker"]);
        assert_eq!(truth.process_named("stopped").unwrap().state, 'T');
        let zombie = truth.process_named("zombie-child").unwrap();
        assert_eq!((zombie.state, zombie.ppid), ('Z', truth.process_named("zombie-parent").unwrap().pid));
        assert!(zombie.exe.is_none() && zombie.cmdline.is_empty());
        let long = truth.process_named("a-process-with-").unwrap();
        assert_eq!(long.exe.as_deref(), Some("/bin/a-process-with-a-long-name"));
        assert_eq!(truth.process_named("rewritten").unwrap().arguments().first().unwrap(), "rewritten: serving [idle]");
        assert!(truth.process_named("emptied").unwrap().cmdline.iter().all(|&byte| byte == 0));
        assert_eq!(truth.process_named("deleted").unwrap().exe.as_deref(), Some("/run/tools/deleted (deleted)"));
        let kthreadd = truth.process_named("kthreadd").unwrap();
        assert!(kthreadd.kernel_thread && kthreadd.pid == 2);
        let family: Vec<_> = (0..3).map(|i| truth.process_named(&format!("family-{i}")).unwrap()).collect();
        assert_eq!((family[1].ppid, family[2].ppid), (family[0].pid, family[1].pid));
    });
}

#[test]
fn tables_of_the_kernel_are_there() {
    each(|guest| {
        let truth = &guest.truth;
        assert!(truth.kallsyms().unwrap().len() > 40_000);
        assert!(truth.modules().unwrap().len() >= 5);
        assert!(truth.dmesg().unwrap().iter().any(|record| record.text.starts_with("Linux version ")));
        assert!(truth.iomem().unwrap().iter().any(|range| range.name == "Kernel code"));
        assert_eq!(truth.release().unwrap(), guest.meta.release);
        assert_eq!(truth.hostname().unwrap(), "orchard");
        assert!(truth.boot_time().unwrap() > 1_700_000_000);
        let cpus = registers(&guest.text("registers.txt").unwrap()).unwrap();
        assert_eq!(cpus.len(), usize::try_from(guest.meta.cpus).unwrap());
        assert_eq!(cpus.iter().map(|cpu| cpu.get("CR3").unwrap()).collect::<Vec<_>>(), guest.meta.cr3);
    });
}
