//! What is measured: one case for each kind of access, size and order.
//!
//! Owns: translations and reads at addresses, and what takes part in them. Must not know: how they are timed or reported.
//! Keeps: operations are set up before; what runs is the call alone, and all contenders of a case visit the same addresses.

#[cfg(feature = "compare")]
mod calls;
#[cfg(feature = "compare")]
mod loaded;
#[cfg(feature = "compare")]
mod processes;
#[cfg(feature = "compare")]
mod scans;
mod threads;
mod whole;

use std::{cell::RefCell, hint::black_box, ops::Range, rc::Rc};

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    memory::ViewRead,
    paging::{MaybePhys, TranslateOp},
};

#[cfg(feature = "compare")]
pub(crate) use self::threads::{ALONE, BARE_ALONE};
#[cfg(feature = "compare")]
pub use self::{
    calls::{Calls, called},
    loaded::plugins,
    processes::{command, processes},
    scans::scan,
};
pub use self::{
    threads::{read_pages_by_threads, translate_by_threads},
    whole::{COPIES, copies, map, sequential, sequential_by_threads},
};
use crate::{Checked, Order, measure::Contender, peer::Peer};

/// Batch sizes that are measured.
pub const BATCHES: [usize; 6] = [1, 16, 64, 1024, 16384, 1 << 20];
/// The library's name among the contenders.
pub const OURS: &str = "memflow";
/// The library's name in the same case, address by address.
pub const ONE_BY_ONE: &str = "memflow, one by one";
/// The name of the plain bare walk among the contenders.
pub const BARE: &str = "bare";
/// Bytes of a base page.
const PAGE: usize = 4096;
/// Bytes that a case of page reads fills: more than the caches closest to the processor, less than takes long.
const PAGE_BYTES: usize = 16 << 20;

/// One case.
#[derive(Debug)]
pub struct Case<'a> {
    /// Its name: what, image, order, size.
    pub name: String,
    /// What an item is.
    pub per: &'static str,
    /// How many of them one run of a contender does.
    pub items: usize,
    /// Who takes part: references first, then [`OURS`], then others of ours.
    pub contenders: Vec<Contender<'a>>,
    /// How many of the contenders are references, which ours are compared with.
    pub references: usize,
    /// Other projects.
    pub peers: Vec<Peer<'a>>,
}

/// The parts of `0..count` of `batch` each; the last may be shorter.
fn batches(count: usize, batch: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(batch).map(move |from| from..count.min(from + batch))
}

/// Address by address, with page, rights and reasons too.
pub fn translate_fully<'a>(checked: &'a Checked<'a>, order: Order) -> Case<'a> {
    let mut case = translate_single(checked, order);
    case.name = format!("operations/{}/{order}/single", checked.image().name);
    let image = checked.image();
    let mut out = vec![None; checked.addresses().len()];
    case.contenders.pop();
    case.contenders.push(Contender::new(OURS, move || {
        let space = image.space.over(&*image.memory);
        for (out, address) in out.iter_mut().zip(checked.addresses()) {
            *out = Some(space.translate(VirtAddr::new(*address)));
        }
        black_box(&mut out);
    }));
    case
}

/// Address by address.
pub fn translate_single<'a>(checked: &'a Checked<'a>, order: Order) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let mut bare_out = vec![0; count];
    let contenders = vec![
        Contender::new(BARE, move || checked.translate(0..count, black_box(&mut bare_out))),
        one_by_one(checked, OURS),
    ];
    #[cfg(feature = "peers")]
    let peers = crate::peers::translate_single(checked);
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    let name = format!("translate/{}/{order}/single", image.name);
    Case { name, per: "address", items: count, contenders, references: 1, peers }
}

fn one_by_one<'a>(checked: &'a Checked<'a>, name: &str) -> Contender<'a> {
    let image = checked.image();
    let mut out = vec![0; checked.addresses().len()];
    Contender::new(name, move || {
        let space = image.space.over(&*image.memory);
        for (out, address) in out.iter_mut().zip(checked.addresses()) {
            *out = space.phys(VirtAddr::new(*address)).map_or(0, |phys| phys.as_u64());
        }
        black_box(&mut out);
    })
}

/// Batch by batch, for eight bytes each, as the bare walk writes. Where tables exceed the caches, interleaved bare walks take part too.
pub fn translate_batch<'a>(checked: &'a Checked<'a>, order: Order, batch: usize) -> Case<'a> {
    let image = checked.image();
    let addresses: Vec<_> = checked.addresses().iter().map(|address| VirtAddr::new(*address)).collect();
    let mut found = vec![MaybePhys::NONE; addresses.len()];
    let ours = Contender::new(OURS, move || {
        let space = image.space.over(&*image.memory);
        for (addresses, found) in addresses.chunks(batch).zip(found.chunks_mut(batch)) {
            let missing = space.translate_to(addresses, found);
            assert_eq!(missing, 0, "a mapped address leads nowhere");
        }
        black_box(&mut found);
    });
    batched("translate", checked, order, batch, ours)
}

/// The same with operations, whose answers have page, rights and reasons too.
pub fn translate_operations<'a>(checked: &'a Checked<'a>, order: Order, batch: usize) -> Case<'a> {
    let image = checked.image();
    let mut ops: Vec<_> = checked.addresses().iter().map(|address| TranslateOp::new(VirtAddr::new(*address))).collect();
    let ours = Contender::new(OURS, move || {
        for ops in ops.chunks_mut(batch) {
            image.space.translate_batch(&*image.memory, ops);
        }
        black_box(&mut ops);
    });
    batched("operations", checked, order, batch, ours)
}

/// A way of ours to translate in batches, beside bare walks, our own one by one, and peers.
fn batched<'a>(what: &str, checked: &'a Checked<'a>, order: Order, batch: usize, ours: Contender<'a>) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let mut contenders = bare(
        checked,
        batch,
        Checked::translate,
        [(16, Checked::translate_together::<16>), (32, Checked::translate_together::<32>)],
    );
    let references = contenders.len();
    contenders.extend([ours, one_by_one(checked, ONE_BY_ONE)]);
    #[cfg(feature = "peers")]
    let peers = crate::peers::translate_batch(checked, batch, order == Order::Mixed);
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    let name = format!("{what}/{}/{order}/{batch}", image.name);
    Case { name, per: "address", items: count, contenders, references, peers }
}

/// A bare walk over a range of indices.
type BareWalk<'i> = for<'a, 'b> fn(&'a Checked<'i>, Range<usize>, &'b mut [u64]);

/// Bare walks batch by batch, one by one and, for large images and batches, side by side.
fn bare<'a, 'i>(
    checked: &'a Checked<'i>,
    batch: usize,
    plain: BareWalk<'i>,
    together: [(usize, BareWalk<'i>); 2],
) -> Vec<Contender<'a>> {
    let count = checked.addresses().len();
    let large = checked.image().exceeds_caches();
    // No more at a time than there are in a batch.
    let together = together.into_iter().filter(|(lanes, _)| large && *lanes <= batch);
    let named = together.map(|(lanes, walk)| (format!("bare, {lanes} at a time"), walk));
    let walks = [(BARE.to_owned(), plain)].into_iter().chain(named);
    walks
        .map(|(name, walk)| {
            let mut out = vec![0; count];
            Contender::new(name, move || {
                batches(count, batch).for_each(|range| walk(checked, range, &mut out));
                black_box(&mut out);
            })
        })
        .collect()
}

/// Eight bytes at each address; batch size 0 stands for typed reads one by one.
pub fn read<'a>(checked: &'a Checked<'a>, order: Order, batch: usize) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let mut contenders = bare(
        checked,
        batch.max(1),
        Checked::read,
        [(16, Checked::read_together::<16>), (32, Checked::read_together::<32>)],
    );
    let references = contenders.len();
    let view = image.view();
    let mut bytes = vec![0_u64; count];
    contenders.push(if batch == 0 {
        Contender::new(OURS, move || {
            for (out, address) in bytes.iter_mut().zip(checked.addresses()) {
                *out = view.read::<u64>(VirtAddr::new(*address)).unwrap_or_default();
            }
            black_box(&mut bytes);
        })
    } else {
        let mut reads = Reads::new(checked.addresses(), 8);
        Contender::new(OURS, move || reads.run(batch, |ops| view.read_batch(ops).is_ok()))
    });
    #[cfg(feature = "peers")]
    let peers = crate::peers::read(checked, batch, 8, order == Order::Mixed);
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    let size = if batch == 0 { "single".to_owned() } else { batch.to_string() };
    let name = format!("read8/{}/{order}/{size}", image.name);
    Case { name, per: "address", items: count, contenders, references, peers }
}

/// Eight bytes at each address into a list of values, as the bare walk does.
pub fn read_values<'a>(checked: &'a Checked<'a>, order: Order, batch: usize) -> Case<'a> {
    let mut case = read(checked, order, batch);
    let view = checked.image().view();
    let addresses: Vec<_> = checked.addresses().iter().map(|address| VirtAddr::new(*address)).collect();
    let mut values = vec![0_u64; addresses.len()];
    case.name = format!("values8/{}/{order}/{batch}", checked.image().name);
    case.contenders.retain(|contender| contender.name() != OURS);
    case.contenders.push(Contender::new(OURS, move || {
        for (addresses, values) in addresses.chunks(batch).zip(values.chunks_mut(batch)) {
            let read = view.read_values(addresses, values);
            assert!(read.is_ok_and(|read| read.is_complete()), "a mapped address could not be read");
        }
        black_box(&mut values);
    }));
    case
}

/// 4 KiB at each address.
pub fn read_pages<'a>(checked: &'a Checked<'a>, order: Order, batch: usize) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    // One for both: which pages of this machine a buffer lies in tells more than what is done.
    let out = Rc::new(RefCell::new(vec![0; count * PAGE]));
    let same = out.clone();
    let view = image.view();
    let contenders = vec![
        Contender::new(BARE, move || {
            let mut out = out.borrow_mut();
            batches(count, batch).for_each(|range| checked.read_pages(range, &mut out));
            black_box(&mut *out);
        }),
        Contender::new(OURS, move || {
            let mut out = same.borrow_mut();
            let mut ops = Vec::with_capacity(batch);
            for (addresses, out) in checked.addresses().chunks(batch).zip(out.chunks_mut(batch * PAGE)) {
                let bufs = out.chunks_mut(PAGE);
                ops.clear();
                ops.extend(addresses.iter().zip(bufs).map(|(at, buf)| ViewRead::new(VirtAddr::new(*at), buf)));
                assert!(view.read_batch(&mut ops).is_ok(), "a mapped address could not be read");
            }
            black_box(&mut ops);
        }),
    ];
    #[cfg(feature = "peers")]
    let peers = crate::peers::read(checked, batch, PAGE, order == Order::Mixed);
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    let name = format!("read4096/{}/{order}/{batch}", image.name);
    Case { name, per: "page", items: count, contenders, references: 1, peers }
}

/// How many addresses a case of page reads has.
pub fn page_count() -> usize {
    PAGE_BYTES / PAGE
}

/// Read operations that are set up once and carried out again and again.
pub(crate) struct Reads {
    ops: Vec<ViewRead<'static>>,
}

impl Reads {
    pub(crate) fn new(addresses: &[u64], len: usize) -> Self {
        // Given away for good: operations borrow their buffers, and benchmarks end with the program.
        let bytes = vec![0; addresses.len() * len].leak();
        let addresses = addresses.iter().map(|address| VirtAddr::new(*address));
        Self { ops: addresses.zip(bytes.chunks_mut(len)).map(|(at, buf)| ViewRead::new(at, buf)).collect() }
    }

    pub(crate) fn run(&mut self, batch: usize, mut read: impl FnMut(&mut [ViewRead<'static>]) -> bool) {
        let good = self.ops.chunks_mut(batch).all(&mut read);
        assert!(good, "a mapped address could not be read");
        black_box(&mut self.ops);
    }
}
