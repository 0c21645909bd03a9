//! Scans of real guests: what is found lies where the guest says that it put it, and nothing else is found.
//!
//! Expected places come from the guest: `worker-pool` fills 64 pages with records that say their own index (`guest/cast.c`), and
//! /proc/PID/pagemap says where they lie; or from a plain search of the file that QEMU keeps the memory in.

use std::{collections::BTreeMap, ops::ControlFlow};

use memflow_core::{
    PhysAddr, VirtAddr, VirtRange,
    os::Os,
    paging::{MapBudget, ReverseMapBuilder},
    scan::{Case, Pattern, RegexOptions, Scanner, TextEncoding},
};
use memflow_guests::CapturedGuest;
use memflow_tests::{Opened, guest, on_guests};

on_guests!(amd64 [
    records_are_found_where_the_process_put_them
    pages_lead_back_to_every_process_that_maps_them
]);
on_guests!(@one plain_search "amd64-6.12-4level-pti" [physical_matches_are_those_of_a_plain_search]);

/// Records of `worker-pool`: 64 pages of 16 bytes each.
const RECORDS: u64 = 64 * 256;

fn check(name: &str, compare: impl Fn(&CapturedGuest, &Opened)) {
    let guest = guest(name);
    for opened in Opened::every_form(&guest) {
        compare(&guest, &opened);
    }
}

fn records_are_found_where_the_process_put_them(name: &str) {
    check(name, |guest, opened| {
        let pid = guest.truth.process_named("worker-pool").unwrap().pid;
        let process = opened.os.open_pid(pid).unwrap();
        let (space, memory) = (process.address_space().unwrap(), process.physical_memory());
        let regex = Pattern::regex("pattern-[0-9a-f]{8}", RegexOptions::default()).unwrap();
        let scanner = Scanner::new([regex]).unwrap();
        // The upper half of the tables is the kernel's, whose direct map has every page again.
        let lower = VirtRange::new(VirtAddr::new(0), 1 << 47).unwrap();
        let found = scanner.scan().space_matches(space, memory, &[lower]).unwrap();
        assert!(found.scanned.is_complete());
        let own = found.hits;
        assert_eq!(own.len() as u64, RECORDS, "{:?}", opened.form);
        let start = own[0].addr.as_u64();
        for (hit, index) in own.iter().zip(0..) {
            assert_eq!(hit.addr.as_u64(), start + 16 * index);
            assert_eq!(hit.bytes, format!("pattern-{index:08x}").as_bytes());
        }
        assert!(start.is_multiple_of(0x1000));
        let maps = guest.truth.maps(pid).unwrap();
        assert!(maps.iter().any(|map| (map.start..map.end).contains(&start) && start + 16 * RECORDS <= map.end));

        // The same records in physical memory, at the places that pagemap gives.
        let pages: BTreeMap<u64, u64> =
            guest.truth.pages(pid).unwrap().into_iter().map(|page| (page.virt, page.phys)).collect();
        let found = scanner.scan().physical_matches(&**opened.os.physical_memory(), &[]).unwrap();
        let places: BTreeMap<u64, &[u8]> = found.hits.iter().map(|hit| (hit.addr.as_u64(), &*hit.bytes)).collect();
        for hit in &own {
            let phys = pages[&(hit.addr.as_u64() & !0xfff)] + hit.addr.as_u64() % 0x1000;
            assert_eq!(places.get(&phys), Some(&&*hit.bytes), "{phys:#x}");
        }
    });
}

fn pages_lead_back_to_every_process_that_maps_them(name: &str) {
    check(name, |guest, opened| {
        let agent = guest.truth.agent_pid().unwrap();
        let user = guest.truth.processes().unwrap().into_iter();
        let user = user.filter(|process| !process.kernel_thread && process.state != 'Z' && process.pid != agent);
        let mut builder = ReverseMapBuilder::default();
        let mut expected: BTreeMap<u64, Vec<(usize, u64)>> = BTreeMap::new();
        for process in user {
            let opened = opened.os.open_pid(process.pid).unwrap();
            let space = opened.address_space().unwrap();
            let number = builder.add(space, opened.physical_memory(), None, MapBudget::default()).unwrap();
            for page in guest.truth.pages(process.pid).unwrap() {
                expected.entry(page.phys).or_default().push((number, page.virt));
            }
        }
        let map = builder.build();
        assert!(expected.len() > 100 && expected.values().any(|mappings| mappings.len() > 1), "pages are shared");
        for (phys, mut mappings) in expected {
            mappings.sort_unstable();
            let found = map.find(PhysAddr::new(phys + 0x123));
            let lower = found.iter().filter(|found| found.virt.as_u64() >> 63 == 0);
            let found: Vec<(usize, u64)> = lower.map(|found| (found.space, found.virt.as_u64() - 0x123)).collect();
            assert_eq!(found, mappings, "{phys:#x} in {:?}", opened.form);
        }
    });
}

/// Every place in `bytes` where `text` stands, upper and lower case of ASCII alike.
fn places(bytes: &[u8], text: &[u8]) -> Vec<u64> {
    let first = [text[0].to_ascii_lowercase(), text[0].to_ascii_uppercase()];
    let starts = bytes.iter().zip(0..).filter(|(byte, _)| first.contains(byte)).map(|(_, at)| at);
    starts
        .filter(|at| bytes[*at..].get(..text.len()).is_some_and(|found| found.eq_ignore_ascii_case(text)))
        .map(|at| at as u64)
        .collect()
}

fn physical_matches_are_those_of_a_plain_search(name: &str) {
    check(name, |guest, opened| {
        // The machine has less memory than fits below the hole, so an address is an offset in the file.
        let file = std::fs::read(guest.ram()).unwrap();
        let texts = ["MEMFLOW_SECRET=", "vmlinux", "Debian"];
        let patterns = texts.map(|text| Pattern::text(text, TextEncoding::Utf8, Case::Insensitive).unwrap());
        let scanner = Scanner::new(patterns).unwrap();
        let mut found = vec![Vec::new(); texts.len()];
        let scanned = scanner.scan().physical(&**opened.os.physical_memory(), &[], &mut |hit| {
            found[hit.pattern].push(hit.addr.as_u64());
            ControlFlow::Continue(())
        });
        assert!(scanned.unwrap().is_complete());
        for (text, found) in texts.iter().zip(found) {
            let inside = |places: Vec<u64>| places.into_iter().filter(|at| *at < file.len() as u64).collect::<Vec<_>>();
            let expected = places(&file, text.as_bytes());
            assert!(!expected.is_empty());
            assert_eq!(inside(found), expected, "{text} in {:?}", opened.form);
        }
    });
}
