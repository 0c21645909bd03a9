//! Scans of physical memory, beside the searches of the crates `memchr` and `aho-corasick` over the same bytes.
//!
//! Owns: the patterns. Must not know: how scans are timed or reported.
//! Keeps: no pattern is found, so that all of memory is searched; one thread.

use std::{hint::black_box, ops::ControlFlow};

use aho_corasick::AhoCorasick;
use fastrand::Rng;
use memchr::memmem;
use memflow_core::scan::{Pattern, Scanner};

use super::{Case, OURS};
use crate::{Image, Result, measure::Contender};

/// What no memory holds but this program's.
const NEEDLE: &str = "a needle that nobody has lost";
/// Lengths of patterns when there are many.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=32;

/// Bytes of the image with one of them changed: as common in memory as patterns get, and yet hardly ever there.
fn needles(bytes: &[u8], count: usize) -> Vec<Vec<u8>> {
    if count == 1 {
        return vec![NEEDLE.into()];
    }
    let mut random = Rng::with_seed(count as u64);
    let mut needles = Vec::new();
    while needles.len() < count {
        let len = random.usize(LENGTHS);
        let at = random.usize(0..bytes.len() - len);
        let mut needle = bytes[at..at + len].to_vec();
        // Most of memory is zero, and so would most patterns be.
        if needle.iter().filter(|byte| **byte == 0).count() * 2 <= len {
            needle[random.usize(0..len)] ^= 0x5a;
            needles.push(needle);
        }
    }
    needles
}

/// `count` patterns in all of memory. Items are KiB.
///
/// # Errors
/// The image is not in one piece.
pub fn scan(image: &Image, count: usize) -> Result<Case<'_>> {
    let map = image.memory.direct_map().ok_or("the image cannot be mapped")?;
    let range = map.regions().first().ok_or("the image is empty")?.range;
    let bytes = map.slice(range).ok_or("the image is not in one piece")?;
    let needles = needles(bytes, count);
    let patterns: Vec<Pattern> =
        needles.iter().map(|needle| Pattern::bytes(needle.as_slice())).collect::<Result<_, _>>()?;
    let scanner = Scanner::new(patterns)?;
    let bare: Contender<'_> = match needles.as_slice() {
        [needle] => {
            let finder = memmem::Finder::new(needle).into_owned();
            Contender::new("memmem", move || {
                black_box(finder.find_iter(bytes).count());
            })
        }
        needles => {
            let searcher = AhoCorasick::new(needles)?;
            Contender::new("aho-corasick", move || {
                black_box(searcher.find_overlapping_iter(bytes).count());
            })
        }
    };
    let ours = Contender::new(OURS, move || {
        let mut hits = 0;
        let scanned = scanner.scan().threads(1).physical(&*image.memory, &[], &mut |_| {
            hits += 1;
            ControlFlow::Continue(())
        });
        assert!(scanned.is_ok_and(|scanned| scanned.is_complete()), "the image could not be read");
        black_box(hits);
    });
    let name = format!("scan/{}/{count} patterns", image.name).replace("/1 patterns", "/1 pattern");
    let items = bytes.len() >> 10;
    Ok(Case { name, per: "KiB", items, contenders: vec![bare, ours], references: 1, peers: Vec::new() })
}
