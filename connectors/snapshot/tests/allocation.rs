//! No header makes a parser allocate more than the bytes that are there can justify.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{
    Segment, elf as write_elf, lime as write_lime,
    migration::{Record, Stream, cpu, description},
    note, pattern, qemu_note, xen,
};
use memflow_snapshot::{BytesInput, ParseOptions, ReadAt, elf, lime, migration};

/// The system's allocator, with the largest request it got.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this method, which is that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Room for fixed buffers, such as those that compare memory that is there twice.
const FIXED: usize = 256 << 10;

/// Puts large numbers in every field in turn and looks at the largest request.
fn claims_are_not_believed(
    bytes: &[u8],
    parse: fn(&dyn ReadAt, ParseOptions) -> memflow_core::Result<memflow_snapshot::ParsedImage>,
) {
    for at in (0..bytes.len() - 8).step_by(2) {
        for value in [0xffff, 0x4000_0000, 0xffff_ffff, 1 << 33, 1 << 60, u64::MAX] {
            for width in [2, 4, 8] {
                let mut work = bytes.to_vec();
                work[at..at + width].copy_from_slice(&u64::to_le_bytes(value)[..width]);
                let input = BytesInput::new("claims".as_ref(), &work);
                for partial in [false, true] {
                    LARGEST.store(0, Ordering::Relaxed);
                    drop(parse(&input, ParseOptions { partial }));
                    let largest = LARGEST.load(Ordering::Relaxed);
                    assert!(largest <= FIXED + 4 * work.len(), "{largest:#x} bytes for {value:#x} at {at:#x}");
                }
            }
        }
    }
}

/// Bytes for keeps.
struct Owned(Vec<u8>);

impl ReadAt for Owned {
    fn path(&self) -> &Path {
        "claims".as_ref()
    }

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        BytesInput::new(self.path(), &self.0).read_at(offset, buf)
    }
}

fn parse_stream(input: &dyn ReadAt, options: ParseOptions) -> memflow_core::Result<memflow_snapshot::ParsedImage> {
    let mut bytes = vec![0; input.size() as usize];
    input.read_at(0, &mut bytes).unwrap();
    migration::parse(Arc::new(Owned(bytes)), options).map(|packed| packed.image)
}

// One test, as the watch is on the whole process.
#[test]
fn largest_request_is_in_proportion_to_the_bytes_that_are_there() {
    let segments = [Segment::new(0, pattern(0, 0x100)), Segment::new(0x1000, pattern(1, 0x100))];
    for (wide, machine) in [(true, 62), (false, 3)] {
        let notes = [qemu_note(true), note("VMCOREINFO", 0, b"A=1\n")].concat();
        claims_are_not_believed(&write_elf(wide, machine, &notes, &segments), elf::parse);
    }
    let core = xen::Core { pages: vec![(1, 0, pattern(1, 0x1000))], ..xen::Core::default() };
    claims_are_not_believed(&core.write(), elf::parse);
    let fields = vec![("env.regs", 8, vec![1; 16]), ("env.cr[3]", 8, vec![3])];
    let stream = Stream {
        records: vec![Record::Fill("pc.ram", 0x1000, 0), Record::Fill("pc.ram", 0x3000, 7), Record::NextSection],
        devices: [cpu(3, 0, &fields), description(1, &fields)].concat(),
        ..Stream::default()
    };
    claims_are_not_believed(&stream.write(), parse_stream);
    let mapped = Stream { blocks: vec![("pc.ram", 0x1000)], capabilities: vec!["mapped-ram"], ..Stream::default() };
    let bytes = mapped.write_mapped(&[]);
    // The pages are the rest.
    claims_are_not_believed(&bytes[..0x140], parse_stream);
    claims_are_not_believed(&write_lime(&[(0, pattern(0, 0x100)), (0x1000, pattern(1, 0x100))]), lime::parse);
}
