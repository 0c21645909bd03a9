//! Grams: a few bytes of a pattern that are looked for in its place.
//!
//! Owns: which bytes of a pattern are fit for it, how wide grams are and how far apart the places that are looked at, and which
//! grams stand for which pattern. Must not know: regular expressions, how grams are looked for.
//! Keeps: where every `stride`th place is looked at, `stride` grams in a row stand for a pattern, so that each of its places holds exactly one of
//! them at a place that is looked at; no more than [`MOST_ALIKE`] patterns stand behind one gram.
//!
//! A wide stride looks at fewer places and needs more grams in a row, of which one may be common. What that costs is estimated
//! for each shape, and the cheapest is taken. For each pattern those grams are taken that are rare in memory and that few others have taken.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::{super::pattern::Fixed, Numbered, rarity};

/// Bytes of the narrowest gram that is not rather a pattern by itself.
pub(super) const GRAM: usize = 4;
/// Bytes of the widest gram.
pub(super) const WIDEST: usize = 8;
/// Patterns that may stand behind one gram: each costs a look at every place that has it.
pub(super) const MOST_ALIKE: u32 = 32;
/// Places from one look to the next, of which there is one.
pub(super) const STRIDES: [usize; 5] = [8, 5, 4, 2, 1];
/// Kinds of a gram that are listed, where some of its bits may be anything.
const MOST_VARIANTS: u32 = 16;
/// Places in a pattern from which grams are tried.
const MOST_STARTS: usize = 64;
/// Patterns by which a shape is chosen; of more, some.
const SAMPLE: usize = 4096;

/// Nanoseconds for a place that is looked at, one that holds a gram, and each pattern behind it, measured on a Zen 4 processor. Only
/// their proportions matter.
const LOOK: f32 = 0.5;
const CANDIDATE: f32 = 6.0;
const CHECK: f32 = 3.0;
/// For a byte that another engine looks at as well: one that takes few patterns, and one that takes any.
const FEW: f32 = 0.1;
const ANY: f32 = 2.5;
/// For a byte, from which on a pattern is better left to an engine for few.
const HOT: f32 = 0.02;

/// The longest bytes in a row of a pattern that have few variants: where, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    offset: usize,
    pub(super) len: usize,
}

impl Run {
    pub(super) fn of(fixed: &Fixed) -> Self {
        let mut best = Self { offset: 0, len: 0 };
        let mut start = 0;
        for index in 0..fixed.value.len() {
            if fixed.bits(index).count_zeros() > 1 {
                start = index + 1;
            }
            let len = index + 1 - start;
            if len > best.len {
                best = Self { offset: start, len };
            }
        }
        best
    }
}

/// How grams are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Bytes of a gram, at most [`WIDEST`].
    pub(super) width: usize,
    /// Places from one look to the next, one of [`STRIDES`].
    pub(super) stride: usize,
}

impl Shape {
    /// Bytes that the grams of a pattern cover.
    fn span(self) -> usize {
        self.width + self.stride - 1
    }

    /// Those in which a pattern of `len` bytes has as wide grams as it can.
    fn of(len: usize) -> impl Iterator<Item = Self> {
        let shapes = STRIDES.into_iter().filter(move |stride| *stride <= len);
        let shapes = shapes.map(move |stride| Self { width: (len + 1 - stride).min(WIDEST), stride });
        shapes.filter(move |shape| shape.width >= len.min(GRAM))
    }
}

/// Which grams stand for patterns.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) shape: Shape,
    /// For each pattern the offset of its first gram; `None` when it has none that is fit.
    pub(super) firsts: Vec<Option<usize>>,
    /// What it costs to look for them, in nanoseconds for a byte.
    cost: f32,
}

impl Choice {
    /// The best for these patterns.
    pub(super) fn best(patterns: &[Numbered], few: usize) -> Self {
        let step = patterns.len().div_ceil(SAMPLE).max(1);
        let sample: Vec<&Numbered> = patterns.iter().step_by(step).collect();
        let mut lens: Vec<usize> = sample.iter().map(|numbered| Run::of(&numbered.fixed).len).collect();
        lens.sort_unstable();
        let shortest = |dropped: usize| lens.get(dropped).or(lens.last()).copied().unwrap_or(1).max(1);
        // Once for all of them, and once without those that an engine for few may take.
        let shapes = Shape::of(shortest(0)).chain(Shape::of(shortest(few / step)));
        let mut best: Option<Self> = None;
        for shape in shapes {
            let least = LOOK / shape.stride as f32;
            if best.as_ref().is_none_or(|best| least < best.cost && shape != best.shape) {
                let choice = Self::of(&sample, shape, few);
                if best.as_ref().is_none_or(|best| choice.cost < best.cost) {
                    best = Some(choice);
                }
            }
        }
        let shape = best.map_or(Shape { width: 1, stride: 1 }, |best| best.shape);
        Self::of(&patterns.iter().collect::<Vec<_>>(), shape, few)
    }

    /// The best in this shape.
    pub(super) fn of(patterns: &[&Numbered], shape: Shape, few: usize) -> Self {
        let mut taken: HashMap<u64, u32> = HashMap::new();
        let mut firsts = vec![None; patterns.len()];
        let mut costs = vec![0.0; patterns.len()];
        // Who has less choice is served first.
        let runs: Vec<Run> = patterns.iter().map(|numbered| Run::of(&numbered.fixed)).collect();
        let mut order: Vec<usize> = (0..patterns.len()).collect();
        order.sort_by_key(|index| runs[*index].len);
        let mut grams = Vec::new();
        for index in order {
            let (fixed, run) = (&patterns[index].fixed, runs[index]);
            let Some(starts) = (run.len + 1).checked_sub(shape.span()).map(|starts| starts.min(MOST_STARTS)) else {
                continue;
            };
            if starts == 0 {
                continue;
            }
            grams.clear();
            grams.extend(
                (0..starts + shape.stride - 1)
                    .map(|offset| cost(&variants(fixed, run.offset + offset, shape.width), shape.width, &taken)),
            );
            let windows = grams.windows(shape.stride).map(|grams| grams.iter().sum::<f32>() / shape.stride as f32);
            let best = windows.enumerate().min_by(|(_, one), (_, other)| one.total_cmp(other));
            let Some((start, cost)) = best.filter(|(_, cost)| cost.is_finite()) else { continue };
            firsts[index] = Some(run.offset + start);
            costs[index] = cost;
            for offset in start..start + shape.stride {
                for gram in variants(fixed, run.offset + offset, shape.width) {
                    *taken.entry(gram).or_default() += 1;
                }
            }
        }
        // Few that stand everywhere are not worth a look at every place.
        let mut hot: Vec<usize> = (0..patterns.len()).filter(|index| costs[*index] > HOT).collect();
        let left = firsts.iter().filter(|first| first.is_none()).count();
        if shape.stride > 1 && left + hot.len() <= few {
            hot.drain(..).for_each(|index| (firsts[index], costs[index]) = (None, 0.0));
        }
        let rest = match firsts.iter().filter(|first| first.is_none()).count() {
            0 => 0.0,
            left if left <= few => FEW,
            _ => ANY,
        };
        let cost = LOOK / shape.stride as f32 + costs.iter().sum::<f32>() + rest;
        Self { shape, firsts, cost }
    }
}

/// What it costs that these variants of a gram are found, one of which is; infinite when the gram is not fit.
fn cost(variants: &[u64], width: usize, taken: &HashMap<u64, u32>) -> f32 {
    if variants.is_empty() {
        return f32::INFINITY;
    }
    let each = variants.iter().map(|gram| match taken.get(gram).copied().unwrap_or(0) {
        MOST_ALIKE.. => f32::INFINITY,
        others => {
            let rarity = rarity::of_bytes(gram.to_le_bytes().get(..width).unwrap_or_default());
            rarity * (CANDIDATE + CHECK * (others + 1) as f32)
        }
    });
    each.sum()
}

/// Every variant of the `width` bytes at `offset`, as little-endian numbers; none when they are too many.
pub(super) fn variants(fixed: &Fixed, offset: usize, width: usize) -> SmallVec<[u64; 1]> {
    let (mut value, mut wild) = (0, 0);
    for (index, shift) in (offset..offset + width).zip((0..u64::BITS).step_by(8)) {
        value |= u64::from(fixed.value.get(index).copied().unwrap_or(0)) << shift;
        wild |= u64::from(!fixed.bits(index)) << shift;
    }
    if wild.count_ones() > MOST_VARIANTS.ilog2() {
        return SmallVec::new();
    }
    // All subsets of the bits that may be anything, in the order of numbers.
    let mut variants = SmallVec::from_buf([value]);
    let mut part = 0u64;
    while part != wild {
        part = part.wrapping_sub(wild) & wild;
        variants.push(value | part);
    }
    variants
}
