//! A crash dump of a machine with 64 GiB: what opening it costs does not grow with its memory, only with its runs.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use memflow_core::{PhysAddr, memory::PhysicalMemoryExt};
use memflow_snapshot::{OpenOptions, open};

use crate::{
    common::{
        crash_dump::{PAGE, header64, put},
        pattern,
    },
    measure::{TIME, measured},
};

const X64: u32 = 0x8664;
const PAGES: u64 = 64 << 18;
/// Most memory that opening it may hold.
const MEMORY: u64 = 50 << 20;

/// A sparse file: header, bitmap, room for the pages. Every `period`th page is not in the dump.
fn sparse(file: &File, period: u64) -> (u64, u64) {
    let mut bits = vec![0xffu8; PAGES as usize / 8];
    for page in (0..PAGES).step_by(period as usize) {
        bits[page as usize / 8] &= !(1 << (page % 8));
    }
    let held = PAGES - PAGES.div_ceil(period);
    let first_page = (0x2000 + 0x38 + bits.len() as u64).next_multiple_of(PAGE as u64);
    let mut head = [&b"FDMPDUMP"[..], &[0; 0x30]].concat();
    for (at, value) in [(0x20, first_page), (0x28, held), (0x30, PAGES)] {
        put(&mut head, at, &value.to_le_bytes());
    }
    file.write_all_at(&header64(X64, 5, &[(0, PAGES)]), 0).unwrap();
    file.write_all_at(&[head, bits].concat(), 0x2000).unwrap();
    file.set_len(first_page + held * PAGE as u64).unwrap();
    (first_page, held)
}

/// Bytes that this thread has read from files, as the kernel counts them.
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// The command in the documentation shows what this prints.
#[test]
#[expect(clippy::print_stdout, reason = "the figures are for the documentation")]
fn dump_of_64_gib_opens_at_once() {
    for period in [PAGES, 4096, 64] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory.dmp");
        let file = File::create_new(&path).unwrap();
        let (first_page, held) = sparse(&file, period);
        // Page 1 is the first, and the last page is the last.
        file.write_all_at(&pattern(1, PAGE), first_page).unwrap();
        file.write_all_at(&pattern(2, PAGE), first_page + (held - 1) * PAGE as u64).unwrap();
        let before = bytes_read();
        let (snapshot, cost) = measured(|| open(&path, &OpenOptions::default()).unwrap());
        let read = bytes_read() - before;
        let runs = snapshot.memory.metadata().runs;
        println!(
            "{} GiB in {} runs: {:.1} ms, {:.1} MiB held at most, {:.1} MiB read of the file",
            runs.total_bytes() >> 30,
            runs.runs().len(),
            cost.time.as_secs_f64() * 1e3,
            cost.memory as f64 / f64::from(1 << 20),
            read as f64 / f64::from(1 << 20),
        );
        assert_eq!(runs.total_bytes(), held * PAGE as u64);
        assert!(cost.memory <= MEMORY && cost.time <= TIME, "{period}: {cost:?}");
        assert!(read <= 2 * (first_page + 0x1_0000), "{period}: {read:#x} bytes of {first_page:#x}");
        let mut page = vec![0; PAGE];
        snapshot.memory.read_into(PhysAddr::new(PAGE as u64), &mut page).unwrap();
        assert_eq!(page, pattern(1, PAGE));
        snapshot.memory.read_into(PhysAddr::new((PAGES - 1) * PAGE as u64), &mut page).unwrap();
        assert_eq!(page, pattern(2, PAGE));
        assert!(snapshot.memory.read_into(PhysAddr::new(0), &mut page).unwrap_err().is_not_in_image());
    }
}
