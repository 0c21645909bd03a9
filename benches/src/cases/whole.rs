//! Cases about all of something: consecutive bytes, everything that is mapped.
//!
//! Owns: sequential reads and maps. Must not know: how they are timed or reported.
//! Keeps: as [`cases`](super).

use std::{hint::black_box, ops::ControlFlow};

use memflow_core::{MemoryViewExt, VirtAddr, paging::MapBudget};

use super::{Case, OURS, PAGE, threads};
use crate::{Image, Result, measure::Contender};

/// Bytes of a sequential read.
const SEQUENTIAL: usize = 64 << 20;

/// Consecutive addresses, and where their bytes lie.
struct Stretch<'a> {
    start: VirtAddr,
    len: usize,
    runs: Vec<&'a [u8]>,
}

impl<'a> Stretch<'a> {
    fn new(image: &'a Image) -> Result<Self> {
        let (start, len) = image.longest();
        let pages = (len as usize).min(SEQUENTIAL) / PAGE;
        let addresses = (0..pages).map(|page| start.as_u64() + (page * PAGE) as u64).collect();
        let runs = crate::Bare::new(image)?.check(addresses, PAGE)?.runs();
        Ok(Self { start, len: pages * PAGE, runs })
    }

    fn name(&self, image: &Image, rest: &str) -> String {
        format!("sequential/{}/{}MiB{rest}", image.name, self.len >> 20)
    }
}

/// Copies runs to a buffer of their length.
fn copy(runs: &[&[u8]], out: &mut [u8]) {
    let mut rest = out;
    for run in runs {
        let (part, after) = rest.split_at_mut(run.len());
        part.copy_from_slice(run);
        rest = after;
    }
}

/// 64 MiB of consecutive addresses in one read, or as much as there is. Items are KiB.
///
/// # Errors
/// The image has no consecutive pages that can be walked bare.
pub fn sequential(image: &Image) -> Result<Case<'_>> {
    let stretch = Stretch::new(image)?;
    let (start, len) = (stretch.start, stretch.len);
    let name = stretch.name(image, "");
    let mut out = vec![0; len];
    let mut ours = out.clone();
    let view = image.view();
    let contenders = vec![
        Contender::new("memcpy", move || {
            copy(&stretch.runs, &mut out);
            black_box(&mut out);
        }),
        Contender::new(OURS, move || {
            assert!(view.read_into(start, &mut ours).is_ok(), "mapped memory could not be read");
            black_box(&mut ours);
        }),
    ];
    #[cfg(feature = "peers")]
    let peers = crate::peers::sequential(image, start.as_u64(), len);
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    Ok(Case { name, per: "KiB", items: len >> 10, contenders, references: 1, peers })
}

/// The same by two threads, each with one half.
///
/// # Errors
/// As [`sequential`].
pub fn sequential_by_threads(image: &Image) -> Result<Case<'_>> {
    let stretch = Stretch::new(image)?;
    let (start, len) = (stretch.start, stretch.len);
    let name = stretch.name(image, "/2 threads");
    // Runs are cut where the halves meet.
    let mut halves: [Vec<&[u8]>; 2] = [Vec::new(), Vec::new()];
    let mut done = 0;
    for run in &stretch.runs {
        let (one, other) = run.split_at((len / 2).saturating_sub(done).min(run.len()));
        halves[0].push(one);
        halves[1].push(other);
        done += run.len();
    }
    let mut buffers = [(); 4].map(|()| vec![0; len]);
    let pair = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let [bare, ours, bare_alone, ours_alone] = &mut buffers;
    let [mut bare, mut ours, mut bare_alone, mut ours_alone] = [bare, ours, bare_alone, ours_alone].map(std::mem::take);
    let views = [image.view(), image.view()];
    let [view, alone] = views;
    let read = |view: &memflow_core::view::SpaceView, at: VirtAddr, out: &mut [u8]| {
        assert!(view.read_into(at, out).is_ok(), "mapped memory could not be read");
    };
    let contenders = vec![
        Contender::new(threads::BARE, move || {
            let (one, other) = bare.split_at_mut(len / 2);
            threads::both(|| copy(&halves[0], one), || copy(&halves[1], other));
            black_box(&mut bare);
        }),
        Contender::new(OURS, move || {
            let (one, other) = ours.split_at_mut(len / 2);
            let middle = start.wrapping_add(len as u64 / 2);
            pair.install(|| rayon::join(|| read(&view, start, one), || read(&view, middle, other)));
            black_box(&mut ours);
        }),
        Contender::new(threads::ALONE, move || {
            read(&alone, start, &mut ours_alone);
            black_box(&mut ours_alone);
        }),
        Contender::new(threads::BARE_ALONE, move || {
            copy(&stretch.runs, &mut bare_alone);
            black_box(&mut bare_alone);
        }),
    ];
    Ok(Case {
        name,
        per: "KiB",
        items: len >> 10,
        contenders: threads::by_wall(contenders),
        references: 1,
        peers: Vec::new(),
    })
}

/// Sizes of [`copies`].
pub const COPIES: [usize; 6] = [2 << 20, 4 << 20, 8 << 20, 16 << 20, 32 << 20, 64 << 20];

/// One read of so many consecutive bytes by as many threads as the library takes, beside one thread, and two that are told to: which of
/// the two is faster from which length on. Items are KiB.
///
/// # Errors
/// As [`sequential`].
pub fn copies(image: &Image, len: usize) -> Result<Case<'_>> {
    let (start, longest) = image.longest();
    let len = len.min(longest as usize / PAGE * PAGE);
    let [view, one, halves] = [image.view(), image.view(), image.view()];
    let pair = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    let mut buffers = [(); 3].map(|()| vec![0_u8; len]);
    let [ours, alone, both] = &mut buffers;
    let [mut ours, mut alone, mut both] = [ours, alone, both].map(std::mem::take);
    let read = |view: &memflow_core::view::SpaceView, at: VirtAddr, out: &mut [u8]| {
        assert!(view.read_into(at, out).is_ok(), "mapped memory could not be read");
        black_box(out);
    };
    let contenders = vec![
        Contender::new(threads::ALONE, move || read(&one, start, &mut alone)),
        Contender::new(OURS, move || {
            // Not this thread, which is kept to itself.
            std::thread::scope(|scope| {
                scope.spawn(|| read(&view, start, &mut ours));
            });
        }),
        Contender::new("memflow, two threads", move || {
            let (first, second) = both.split_at_mut(len / 2);
            let middle = start.wrapping_add(len as u64 / 2);
            pair.install(|| rayon::join(|| read(&halves, start, first), || read(&halves, middle, second)));
        }),
    ];
    let name = format!("copies/{}/{}MiB", image.name, len >> 20);
    let contenders = threads::by_wall(contenders);
    Ok(Case { name, per: "KiB", items: len >> 10, contenders, references: 1, peers: Vec::new() })
}

/// Everything that is mapped. Items are pages.
///
/// # Errors
/// The tables cannot be read in place.
pub fn map(image: &Image) -> Result<Case<'_>> {
    let pages = image.count_pages().ok_or("tables are not in place")?;
    let contenders = vec![
        Contender::new("scan of tables", move || assert_eq!(black_box(image.count_pages()), Some(pages))),
        Contender::new(OURS, || assert!(black_box(mapped_bytes(image)) != 0)),
    ];
    #[cfg(feature = "peers")]
    let peers = crate::peers::map(image, pages as usize, mapped_bytes(image));
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    let name = format!("map/{}/{pages} pages", image.name);
    Ok(Case { name, per: "page", items: pages as usize, contenders, references: 1, peers })
}

fn mapped_bytes(image: &Image) -> u64 {
    let mut bytes = 0;
    let summary = image.space.map(&*image.memory, None, MapBudget::default(), &mut |run| {
        bytes += run.virt.len();
        ControlFlow::Continue(())
    });
    assert!(summary.is_ok_and(|summary| summary.is_complete()));
    bytes
}
