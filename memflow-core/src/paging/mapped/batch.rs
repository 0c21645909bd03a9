//! What a batch is to the walks in place: addresses, and a place for the answer of each.
//!
//! Owns: [`Batch`] and its two shapes: operations, which hold both, and [`Pairs`] of an address and eight bytes for its answer.
//! Must not know: how an address is walked.
//! Keeps: every address has its own place, and gets one answer.

#[cfg(all(target_arch = "x86_64", not(miri)))]
use super::{directories::FromRoot, each::Rest, lanes, plan::Mode};
#[cfg(all(target_arch = "x86_64", not(miri)))]
use crate::memory::HasLanes;
use crate::{
    address::VirtAddr,
    error::Reason,
    paging::{MaybePhys, Translation},
};

/// An address that is to be translated.
pub(crate) trait Asked {
    /// The address.
    fn addr(&self) -> u64;

    /// Takes the answer.
    fn answer(&mut self, found: Translation);

    /// Takes it that there is no translation.
    fn refuse(&mut self, reason: Reason);

    /// Takes one or the other.
    #[inline]
    fn take(&mut self, result: Result<Translation, Reason>) {
        match result {
            Ok(found) => self.answer(found),
            Err(reason) => self.refuse(reason),
        }
    }
}

impl<A: Asked> Asked for &mut A {
    #[inline(always)]
    fn addr(&self) -> u64 {
        (**self).addr()
    }

    #[inline(always)]
    fn answer(&mut self, found: Translation) {
        (**self).answer(found);
    }

    #[inline(always)]
    fn refuse(&mut self, reason: Reason) {
        (**self).refuse(reason);
    }
}

/// Addresses that are to be translated, and places for their answers.
pub(super) trait Batch: Sized {
    /// One of them.
    type Item: Asked;

    /// How many.
    fn count(&self) -> usize;

    /// The address with this number; zero behind the last.
    fn addr_at(&self, index: usize) -> u64;

    /// All addresses.
    fn addresses(&self) -> impl Iterator<Item = u64>;

    /// All, one by one.
    fn items(self) -> impl Iterator<Item = Self::Item>;

    /// All, so many at a time; the last may be fewer.
    fn parts(self, count: usize) -> impl Iterator<Item = Self>;

    /// Walks of which each instruction takes several on; gives the batch back when nothing was done.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn in_lanes<M: Mode>(self, proof: HasLanes, from_root: FromRoot<'_>, rest: &mut Rest<'_>) -> Result<(), Self>;
}

impl<'a, A: Asked> Batch for &'a mut [A] {
    type Item = &'a mut A;

    #[inline(always)]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn addr_at(&self, index: usize) -> u64 {
        self.get(index).map_or(0, A::addr)
    }

    #[inline(always)]
    fn addresses(&self) -> impl Iterator<Item = u64> {
        self.iter().map(A::addr)
    }

    #[inline(always)]
    fn items(self) -> impl Iterator<Item = Self::Item> {
        self.iter_mut()
    }

    #[inline(always)]
    fn parts(self, count: usize) -> impl Iterator<Item = Self> {
        self.chunks_mut(count)
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    fn in_lanes<M: Mode>(self, proof: HasLanes, from_root: FromRoot<'_>, rest: &mut Rest<'_>) -> Result<(), Self> {
        if lanes::translate::<M, A>(proof, from_root, &mut *self, rest) { Ok(()) } else { Err(self) }
    }
}

/// Addresses, and for each the eight bytes of its answer.
pub(super) struct Pairs<'a> {
    // INVARIANT: as many as there are of `found`.
    addresses: &'a [VirtAddr],
    found: &'a mut [MaybePhys],
}

impl<'a> Pairs<'a> {
    /// As many as both have.
    pub(super) fn new(addresses: &'a [VirtAddr], found: &'a mut [MaybePhys]) -> Self {
        let count = addresses.len().min(found.len());
        let ((addresses, _), (found, _)) = (addresses.split_at(count), found.split_at_mut(count));
        Self { addresses, found }
    }

    /// Both halves.
    #[inline(always)]
    pub(super) fn split(&mut self) -> (&[VirtAddr], &mut [MaybePhys]) {
        (self.addresses, self.found)
    }
}

/// One of them.
pub(super) struct Pair<'a> {
    addr: VirtAddr,
    found: &'a mut MaybePhys,
}

impl Asked for Pair<'_> {
    #[inline(always)]
    fn addr(&self) -> u64 {
        self.addr.as_u64()
    }

    #[inline(always)]
    fn answer(&mut self, found: Translation) {
        *self.found = MaybePhys::new(found.phys);
    }

    #[inline(always)]
    fn refuse(&mut self, _reason: Reason) {
        *self.found = MaybePhys::NONE;
    }
}

impl<'a> Batch for Pairs<'a> {
    type Item = Pair<'a>;

    #[inline(always)]
    fn count(&self) -> usize {
        self.addresses.len()
    }

    #[inline(always)]
    fn addr_at(&self, index: usize) -> u64 {
        self.addresses.get(index).map_or(0, |addr| addr.as_u64())
    }

    #[inline(always)]
    fn addresses(&self) -> impl Iterator<Item = u64> {
        self.addresses.iter().map(|addr| addr.as_u64())
    }

    #[inline(always)]
    fn items(self) -> impl Iterator<Item = Self::Item> {
        self.addresses.iter().zip(self.found).map(|(addr, found)| Pair { addr: *addr, found })
    }

    #[inline(always)]
    fn parts(self, count: usize) -> impl Iterator<Item = Self> {
        let parts = self.addresses.chunks(count).zip(self.found.chunks_mut(count));
        parts.map(|(addresses, found)| Pairs { addresses, found })
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    fn in_lanes<M: Mode>(mut self, proof: HasLanes, from_root: FromRoot<'_>, rest: &mut Rest<'_>) -> Result<(), Self> {
        let (addresses, found) = self.split();
        if lanes::translate_to::<M>(proof, from_root, addresses, found, rest) { Ok(()) } else { Err(self) }
    }
}
