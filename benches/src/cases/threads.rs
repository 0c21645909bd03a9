//! Two threads on one handle, beside one thread, and beside two threads of bare walks: what the machine can give.
//!
//! Owns: cases with two threads. Must not know: how they are timed or reported.
//! Keeps: each thread does one half of what a single one does.

use std::hint::black_box;

use memflow_core::{MemoryView, VirtAddr, memory::ViewRead, paging::MaybePhys};

use super::{Case, OURS, PAGE, Reads, batches};
use crate::{
    Checked,
    measure::{Clock, Contender},
};

/// Names of contenders.
pub(super) const BARE: &str = "bare, two threads";
/// Ours in one thread.
pub(crate) const ALONE: &str = "memflow, one thread";
/// The reference in one thread.
pub(crate) const BARE_ALONE: &str = "bare, one thread";

/// Does both at the same time.
pub(super) fn both(one: impl FnOnce() + Send, other: impl FnOnce()) {
    std::thread::scope(|scope| {
        scope.spawn(one);
        other();
    });
}

/// The same contenders, timed by the time that passes, as processor time is that of one thread.
pub(super) fn by_wall(contenders: Vec<Contender<'_>>) -> Vec<Contender<'_>> {
    contenders.into_iter().map(|contender| contender.with_clock(Clock::Wall)).collect()
}

/// Translation in batches.
pub fn translate_by_threads<'a>(checked: &'a Checked<'a>, batch: usize) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let half = count / 2;
    let addresses: Vec<_> = checked.addresses().iter().map(|address| VirtAddr::new(*address)).collect();
    let mut found = vec![MaybePhys::NONE; count];
    let (addresses_alone, mut alone) = (addresses.clone(), found.clone());
    let [mut one, mut other, mut bare_alone] = [(); 3].map(|()| vec![0; count]);
    let translate = move |addresses: &[VirtAddr], found: &mut [MaybePhys]| {
        for (addresses, found) in addresses.chunks(batch).zip(found.chunks_mut(batch)) {
            image.space.translate_to(&*image.memory, addresses, found);
        }
    };
    let contenders = vec![
        Contender::new(BARE, move || {
            both(|| checked.translate(0..half, &mut one), || checked.translate(half..count, &mut other));
            black_box((&mut one, &mut other));
        }),
        Contender::new(OURS, move || {
            let ((one, other), (found_one, found_other)) = (addresses.split_at(half), found.split_at_mut(half));
            both(|| translate(one, found_one), || translate(other, found_other));
            black_box(&mut found);
        }),
        Contender::new(ALONE, move || {
            translate(&addresses_alone, &mut alone);
            black_box(&mut alone);
        }),
        Contender::new(BARE_ALONE, move || {
            checked.translate(0..count, &mut bare_alone);
            black_box(&mut bare_alone);
        }),
    ];
    #[cfg(feature = "peers")]
    let peers = crate::peers::threads(checked, batch, 0);
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    let name = format!("threads/{}/translate/{batch}", image.name);
    Case { name, per: "address", items: count, contenders: by_wall(contenders), references: 1, peers }
}

/// Reads of 4 KiB in batches.
pub fn read_pages_by_threads<'a>(checked: &'a Checked<'a>, batch: usize) -> Case<'a> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let half = count / 2;
    let addresses = checked.addresses();
    let mut halves = [Reads::new(&addresses[..half], PAGE), Reads::new(&addresses[half..], PAGE)];
    let mut all = Reads::new(addresses, PAGE);
    let (view, view_alone) = (image.view(), image.view());
    let [mut one, mut other, mut bare_alone] = [(); 3].map(|()| vec![0; count * PAGE]);
    let contenders = vec![
        Contender::new(BARE, move || {
            let (one, other) = (&mut one, &mut other);
            both(
                || batches(half, batch).for_each(|range| checked.read_pages(range, one)),
                || checked.read_pages(half..count, other),
            );
            black_box((one, other));
        }),
        Contender::new(OURS, move || {
            let [one, other] = &mut halves;
            let read = |ops: &mut [ViewRead<'static>]| view.read_batch(ops).is_ok();
            both(|| one.run(batch, read), || other.run(batch, read));
        }),
        Contender::new(ALONE, move || all.run(batch, |ops| view_alone.read_batch(ops).is_ok())),
        Contender::new(BARE_ALONE, move || {
            checked.read_pages(0..count, &mut bare_alone);
            black_box(&mut bare_alone);
        }),
    ];
    #[cfg(feature = "peers")]
    let peers = crate::peers::threads(checked, batch, PAGE);
    #[cfg(not(feature = "peers"))]
    let peers = Vec::new();
    let name = format!("threads/{}/read4096/{batch}", image.name);
    Case { name, per: "page", items: count, contenders: by_wall(contenders), references: 1, peers }
}
