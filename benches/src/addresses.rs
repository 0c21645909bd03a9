//! Which addresses a benchmark visits, and in which order.
//!
//! Owns: [`Order`] and the choice of addresses. Must not know: what is done at an address.
//! Keeps: the same addresses for the same arguments, in every run and on every machine.

use std::fmt;

use fastrand::Rng;

use crate::image::{Area, Image};

/// Addresses of one cluster: as many as the fields of a few objects.
const CLUSTER: usize = 64;
/// Bytes that a cluster spans: a heap's arena, a module's data.
const CLUSTER_SPAN: u64 = 256 << 10;

/// The order in which addresses come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Anywhere in the address space.
    Random,
    /// The same, ascending.
    Sorted,
    /// In groups of 64 that lie within 256 KiB of each other.
    Clustered,
    /// One of the lower half, one of the upper half, in turns.
    Mixed,
}

impl Order {
    /// Every order.
    pub const ALL: [Self; 4] = [Self::Random, Self::Sorted, Self::Clustered, Self::Mixed];
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Sorted => "sorted",
            Self::Clustered => "clustered",
            Self::Mixed => "mixed",
        })
    }
}

impl Image {
    /// `count` mapped addresses, multiples of `align` (a power of two, at most a page): so many bytes from each on are in its page.
    pub fn addresses(&self, order: Order, count: usize, align: u64) -> Vec<u64> {
        let mut random = Rng::with_seed(count as u64 ^ align << 32);
        let everything: Vec<Area> = self.user.iter().chain(&self.kernel).copied().collect();
        let all = Chooser::new(&everything);
        match order {
            Order::Random => (0..count).map(|_| all.one(&mut random, align)).collect(),
            Order::Sorted => {
                let mut addresses = self.addresses(Order::Random, count, align);
                addresses.sort_unstable();
                addresses
            }
            Order::Clustered => {
                let mut addresses = Vec::with_capacity(count + CLUSTER);
                while addresses.len() < count {
                    let area = all.area(&mut random);
                    let from = random.u64(0..area.len) & !0xfff;
                    let span = CLUSTER_SPAN.min(area.len - from);
                    let one = |_| (area.start.as_u64() + from + random.u64(0..span)) & !(align - 1);
                    addresses.extend((0..CLUSTER).map(one));
                }
                addresses.truncate(count);
                addresses
            }
            Order::Mixed => {
                let halves = [Chooser::new(&self.user), Chooser::new(&self.kernel)];
                halves.iter().cycle().take(count).map(|half| half.one(&mut random, align)).collect()
            }
        }
    }
}

/// Chooses areas by their weight.
struct Chooser<'a> {
    areas: &'a [Area],
    /// For each area, the sum of weights up to and with it.
    upto: Vec<u64>,
}

impl<'a> Chooser<'a> {
    fn new(areas: &'a [Area]) -> Self {
        let mut sum = 0;
        let upto = areas.iter().map(|area| {
            sum += area.weight;
            sum
        });
        Self { areas, upto: upto.collect() }
    }

    fn area(&self, random: &mut Rng) -> &'a Area {
        let ticket = random.u64(0..self.upto[self.upto.len() - 1]);
        &self.areas[self.upto.partition_point(|upto| *upto <= ticket)]
    }

    fn one(&self, random: &mut Rng, align: u64) -> u64 {
        let area = self.area(random);
        (area.start.as_u64() + random.u64(0..area.len)) & !(align - 1)
    }
}
