//! Translation and reads through plugins.
//!
//! Owns: the cases with plugins. Must not know: how plugins are built and opened, how cases are timed.
//! Keeps: the linked plugin is the reference.

use std::hint::black_box;

use memflow_core::{MemoryView, VirtAddr, paging::TranslateOp};

use super::{Case, OURS, Reads};
use crate::{measure::Contender, plugins::Plugins};

/// Translation and eight-byte reads of one batch through plugins.
pub fn plugins<'a>(plugins: &'a Plugins, addresses: &'a [u64]) -> Vec<Case<'a>> {
    let images = || [("linked", &plugins.linked), (OURS, &plugins.loaded), ("loaded, called", &plugins.called)];
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
            per: "address",
            items: addresses.len(),
            contenders,
            references: 1,
            peers: Vec::new(),
        })
        .into()
}
