//! What is measured: one case for each kind of access, size and order.
//!
//! Owns: the cases and what takes part in them. Must not know: how they are timed or reported.
//! Keeps: operations are set up before; what runs is the call alone, and all contenders of a case visit the same addresses.

use std::{
    cell::RefCell,
    hint::black_box,
    ops::{ControlFlow, Range},
    rc::Rc,
};

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    memory::ViewRead,
    paging::{MapBudget, TranslateOp},
};

use crate::{Checked, Image, Result, measure::Contender, plugins::Plugins};

/// Batch sizes that are measured.
pub const BATCHES: [usize; 6] = [1, 16, 64, 1024, 16384, 1 << 20];
/// The library's name among the contenders.
pub const OURS: &str = "memflow";
/// Bytes of a sequential read.
const SEQUENTIAL: usize = 64 << 20;
/// Bytes of a base page.
const PAGE: usize = 4096;
/// Bytes that a case of page reads fills: more than the caches closest to the processor, less than takes long.
const PAGE_BYTES: usize = 16 << 20;

/// One case.
#[derive(Debug)]
pub struct Case<'a> {
    /// Its name: what, image, order, size.
    pub name: String,
    /// What one run of a contender does: addresses, or bytes of a sequential read.
    pub items: usize,
    /// Who takes part: references first, then [`OURS`], then others.
    pub contenders: Vec<Contender<'a>>,
    /// How many of the contenders are references, which the others are compared with.
    pub references: usize,
}

/// The parts of `0..count` of `batch` each; the last may be shorter.
fn batches(count: usize, batch: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(batch).map(move |from| from..count.min(from + batch))
}

/// Address by address.
pub fn translate_single<'a>(checked: &'a Checked<'_>, order: &str) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let (mut bare_out, mut bound_out, mut out) = (vec![0; count], vec![0; count], vec![0; count]);
    let contenders = vec![
        Contender::new("bare", move || checked.translate(0..count, black_box(&mut bare_out))),
        Contender::new(OURS, move || {
            let space = image.space.over(&*image.memory);
            for (out, address) in bound_out.iter_mut().zip(checked.addresses()) {
                let found = space.translate(VirtAddr::new(*address));
                *out = found.map_or(0, |found| found.phys.as_u64());
            }
            black_box(&mut bound_out);
        }),
        Contender::new("memflow, AddressSpace", move || {
            for (out, address) in out.iter_mut().zip(checked.addresses()) {
                let found = image.space.translate(&*image.memory, VirtAddr::new(*address));
                *out = found.map_or(0, |found| found.phys.as_u64());
            }
            black_box(&mut out);
        }),
    ];
    #[cfg(feature = "peers")]
    let contenders = crate::peers::with(contenders, crate::peers::translate_single(checked));
    Case { name: format!("translate/{}/{order}/single", image.name), items: count, contenders, references: 1 }
}

/// Batch by batch. Where tables exceed the caches, interleaved bare walks take part too.
pub fn translate_batch<'a>(checked: &'a Checked<'_>, order: &str, batch: usize) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let mut contenders = bare(
        checked,
        batch,
        Checked::translate,
        [(16, Checked::translate_together::<16>), (32, Checked::translate_together::<32>)],
    );
    let references = contenders.len();
    let mut ops: Vec<_> = checked.addresses().iter().map(|address| TranslateOp::new(VirtAddr::new(*address))).collect();
    contenders.push(Contender::new(OURS, move || {
        for ops in ops.chunks_mut(batch) {
            image.space.translate_batch(&*image.memory, ops);
        }
        black_box(&mut ops);
    }));
    #[cfg(feature = "peers")]
    let contenders = crate::peers::with(contenders, crate::peers::translate_batch(checked, batch));
    Case { name: format!("translate/{}/{order}/{batch}", image.name), items: count, contenders, references }
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
    let walks = [("bare".to_owned(), plain)].into_iter().chain(named);
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
pub fn read<'a>(checked: &'a Checked<'_>, order: &str, batch: usize) -> Case<'a> {
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
    let contenders = crate::peers::with(contenders, crate::peers::read(checked, batch, 8));
    let size = if batch == 0 { "single".to_owned() } else { batch.to_string() };
    Case { name: format!("read8/{}/{order}/{size}", image.name), items: count, contenders, references }
}

/// 4 KiB at each address.
pub fn read_pages<'a>(checked: &'a Checked<'_>, order: &str, batch: usize) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    // One for both: which pages of this machine a buffer lies in tells more than what is done.
    let out = Rc::new(RefCell::new(vec![0; count * PAGE]));
    let same = out.clone();
    let view = image.view();
    let contenders = vec![
        Contender::new("bare", move || {
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
    let contenders = crate::peers::with(contenders, crate::peers::read(checked, batch, PAGE));
    Case { name: format!("read4096/{}/{order}/{batch}", image.name), items: count, contenders, references: 1 }
}

/// How many addresses a case of page reads has.
pub fn page_count() -> usize {
    PAGE_BYTES / PAGE
}

/// Read operations that are set up once and carried out again and again.
struct Reads {
    ops: Vec<ViewRead<'static>>,
}

impl Reads {
    fn new(addresses: &[u64], len: usize) -> Self {
        // Given away for good: operations borrow their buffers, and benchmarks end with the program.
        let bytes = vec![0; addresses.len() * len].leak();
        let addresses = addresses.iter().map(|address| VirtAddr::new(*address));
        Self { ops: addresses.zip(bytes.chunks_mut(len)).map(|(at, buf)| ViewRead::new(at, buf)).collect() }
    }

    fn run(&mut self, batch: usize, mut read: impl FnMut(&mut [ViewRead<'static>]) -> bool) {
        let good = self.ops.chunks_mut(batch).all(&mut read);
        assert!(good, "a mapped address could not be read");
        black_box(&mut self.ops);
    }
}

/// 64 MiB of consecutive addresses in one read, or as much as there is. Items are KiB.
///
/// # Errors
/// The image has no consecutive pages that can be walked bare.
pub fn sequential<'a>(image: &'a Image) -> Result<Case<'a>> {
    let (start, len) = image.longest();
    let pages = (len as usize).min(SEQUENTIAL) / PAGE;
    let addresses = (0..pages).map(|page| start.as_u64() + (page * PAGE) as u64).collect();
    let runs = crate::Bare::new(image)?.check(addresses, PAGE)?.runs();
    let mut out = vec![0; pages * PAGE];
    let mut ours = out.clone();
    let view = image.view();
    let contenders = vec![
        Contender::new("memcpy", move || {
            let mut rest = out.as_mut_slice();
            for run in &runs {
                let (part, after) = rest.split_at_mut(run.len());
                part.copy_from_slice(run);
                rest = after;
            }
            black_box(&mut out);
        }),
        Contender::new(OURS, move || {
            assert!(view.read_into(start, &mut ours).is_ok(), "mapped memory could not be read");
            black_box(&mut ours);
        }),
    ];
    #[cfg(feature = "peers")]
    let contenders = crate::peers::with(contenders, crate::peers::sequential(image, start.as_u64(), pages * PAGE));
    let mib = (pages * PAGE) >> 20;
    Ok(Case {
        name: format!("sequential/{}/{mib}MiB", image.name),
        items: (pages * PAGE) >> 10,
        contenders,
        references: 1,
    })
}

/// Everything that is mapped. Items are pages.
///
/// # Errors
/// The tables cannot be read in place.
pub fn map(image: &Image) -> Result<Case<'_>> {
    let pages = image.count_pages().ok_or("tables are not in place")?;
    let contenders = vec![
        Contender::new("scan of tables", move || assert_eq!(black_box(image.count_pages()), Some(pages))),
        Contender::new(OURS, || {
            let mut bytes = 0;
            let summary = image.space.map(&*image.memory, None, MapBudget::default(), &mut |run| {
                bytes += run.virt.len();
                ControlFlow::Continue(())
            });
            assert!(summary.is_ok_and(|summary| summary.is_complete()) && black_box(bytes) != 0);
        }),
    ];
    #[cfg(feature = "peers")]
    let contenders = crate::peers::with(contenders, crate::peers::map(image));
    Ok(Case { name: format!("map/{}/{pages} pages", image.name), items: pages as usize, contenders, references: 1 })
}

/// The same work by one thread, and by two on one handle: a ratio of 0.5 is perfect.
pub fn threads<'a>(checked: &'a Checked<'_>) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let mut ops: Vec<_> = checked.addresses().iter().map(|address| TranslateOp::new(VirtAddr::new(*address))).collect();
    let mut halves = ops.clone();
    let contenders = vec![
        Contender::new("one thread", move || {
            ops.chunks_mut(1024).for_each(|ops| image.space.translate_batch(&*image.memory, ops));
        }),
        Contender::new(OURS, move || {
            let (one, other) = halves.split_at_mut(count / 2);
            let work = |ops: &mut [TranslateOp]| {
                ops.chunks_mut(1024).for_each(|ops| image.space.translate_batch(&*image.memory, ops));
            };
            std::thread::scope(|scope| {
                scope.spawn(|| work(one));
                work(other);
            });
        }),
    ];
    Case { name: format!("threads/{}/2", image.name), items: count, contenders, references: 1 }
}

/// The same of bare walks, into memory of each thread's own: what two threads of this machine can gain at all.
pub fn bare_threads<'a>(checked: &'a Checked<'_>) -> Case<'a> {
    let count = checked.addresses().len();
    let (mut out, mut halves) = (vec![0; count], [vec![0; count], vec![0; count]]);
    let contenders = vec![
        Contender::new("bare, one thread", move || checked.translate(0..count, black_box(&mut out))),
        Contender::new("bare, two threads", move || {
            let [one, other] = &mut halves;
            std::thread::scope(|scope| {
                scope.spawn(|| checked.translate(0..count / 2, black_box(one)));
                checked.translate(count / 2..count, black_box(other));
            });
        }),
    ];
    Case { name: format!("threads/{}/bare", checked.image().name), items: count, contenders, references: 1 }
}

/// Translation and eight-byte reads of one batch through plugins.
pub fn plugins<'a>(plugins: &'a Plugins, addresses: &'a [u64]) -> Vec<Case<'a>> {
    let images = || [("linked", &plugins.linked), ("loaded", &plugins.loaded), ("loaded, called", &plugins.called)];
    let translate = images().map(|(name, image)| {
        let mut ops: Vec<_> = addresses.iter().map(|address| TranslateOp::new(VirtAddr::new(*address))).collect();
        Contender::new(name, move || {
            image.space.translate_batch(&*image.memory, &mut ops);
            black_box(&mut ops);
        })
    });
    let read = images().map(|(name, image)| {
        let view = image.view();
        let mut reads = Reads::new(addresses, 8);
        Contender::new(name, move || reads.run(addresses.len(), |ops| view.read_batch(ops).is_ok()))
    });
    [("translate", Vec::from(translate)), ("read8", Vec::from(read))]
        .map(|(what, contenders)| Case {
            name: format!("plugin/{what}/{}/{}", plugins.linked.name, addresses.len()),
            items: addresses.len(),
            contenders,
            references: 1,
        })
        .into()
}
