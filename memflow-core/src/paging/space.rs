//! An address space: an architecture, a root, and what the operating system adds.
//!
//! Owns: the public face of translation, and the choice between tables in place and tables that are called for.
//! Must not know: bits of an entry, buffers, operating systems.
//! Keeps: the only place that checks which addresses the mode translates; every address of a batch gets an answer.

use std::{fmt, ptr, sync::Arc};

use bitflags::bitflags;

use super::{
    arch::Architecture,
    batch,
    entry::{Halt, Next, Node},
    mapped::{Asked, AtRoot, InPlace, Known, PlainWalk},
    maybe_phys::MaybePhys,
    pieces::{self, Piece},
    soft_fault::{self, SoftFaults},
    tlb::{self, Start, Tlb, Trust},
    walk::{Called, Walked, walk},
};
use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::Reason,
    memory::{DirectMap, PhysicalMemory},
};

bitflags! {
    /// What the page tables say of a page. Each is one place left of its bit in an entry of x86 (the last comes around to the
    /// first), so that a walk takes all of them over at once.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct PageFlags: u16 {
        /// Writes are allowed at every level.
        const WRITABLE = 1 << 2;
        /// User mode is allowed at every level.
        const USER = 1 << 3;
        /// Instruction fetches are refused at some level.
        const NO_EXECUTE = 1;
        /// The page was used (bit of the page entry).
        const ACCESSED = 1 << 6;
        /// The page was written (bit of the page entry).
        const DIRTY = 1 << 7;
        /// The translation survives a change of address space (bit of the page entry).
        const GLOBAL = 1 << 9;
    }
}

/// Where a virtual address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The physical address.
    pub phys: PhysAddr,
    /// The size of the page that holds it.
    pub page: PageSize,
    /// The level of the entry that maps it: 1 for base pages.
    pub level: u8,
    /// Rights and state.
    pub flags: PageFlags,
}

/// One translation of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TranslateOp {
    /// The virtual address.
    pub addr: VirtAddr,
    /// Its translation, or why there is none; `None` while nobody has tried.
    pub outcome: Option<Result<Translation, Reason>>,
}

impl TranslateOp {
    /// A translation that nobody has tried yet.
    pub fn new(addr: VirtAddr) -> Self {
        Self { addr, outcome: None }
    }
}

impl Asked for TranslateOp {
    #[inline(always)]
    fn addr(&self) -> u64 {
        self.addr.as_u64()
    }

    #[inline(always)]
    fn answer(&mut self, found: Translation) {
        self.outcome = Some(Ok(found));
    }

    #[cold]
    fn refuse(&mut self, reason: Reason) {
        self.outcome = Some(Err(reason));
    }
}

/// An address space: a paging mode, the root of its tables, and possibly an operating system that knows more.
///
/// ```
/// # use std::ops::ControlFlow;
/// # use memflow_core::{memory::*, paging::{x86, AddressSpace, MapBudget, TranslateOp}, address::*, error::StopCause, Reason};
/// // Four tables of one entry each, and one page.
/// let mut bytes = vec![0; 0x6000];
/// for (table, next) in [(0x1000, 0x2003_u64), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x5001)] {
///     bytes[table..table + 8].copy_from_slice(&next.to_le_bytes());
/// }
/// let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x6000), facts: TargetFacts::default() };
/// let memory = BufferMemory::new(config, bytes)?;
///
/// let space = AddressSpace::new(&x86::X64, 0x1000);
/// let found = space.translate(&memory, VirtAddr::new(0x123)).unwrap();
/// assert_eq!((found.phys, found.page), (PhysAddr::new(0x5123), PageSize::KIB_4));
///
/// let Err(Reason::NotMapped(stop)) = space.translate(&memory, VirtAddr::new(0x1000)) else { panic!() };
/// assert_eq!((stop.level, stop.table, stop.cause), (1, PhysAddr::new(0x4000), StopCause::NotPresent));
///
/// let mut ops = [0x123, 0xffff_8000_0000_0000, 0x123].map(|addr| TranslateOp::new(VirtAddr::new(addr)));
/// space.translate_batch(&memory, &mut ops);
/// assert_eq!(ops.map(|op| op.outcome.unwrap().is_ok()), [true, false, true]);
///
/// let mut mapped = 0;
/// let summary = space.map(&memory, None, MapBudget::default(), &mut |run| {
///     mapped += run.virt.len();
///     ControlFlow::Continue(())
/// })?;
/// assert!(summary.is_complete() && mapped == 0x1000);
/// let back = space.phys_to_virt(&memory, PhysAddr::new(0x5123), MapBudget::default())?;
/// assert_eq!(back.addresses, [VirtAddr::new(0x123)]);
/// # Ok::<(), memflow_core::Error>(())
/// ```
#[derive(Clone)]
pub struct AddressSpace {
    arch: &'static Architecture,
    known: Option<Known>,
    plain_walk: PlainWalk,
    root: PhysAddr,
    soft_faults: Option<Arc<dyn SoftFaults>>,
}

/// An address space over one memory ([`AddressSpace::over`]): what does not change from one address to the next has been looked up.
#[derive(Clone, Copy)]
pub struct Translator<'a> {
    space: &'a AddressSpace,
    memory: &'a dyn PhysicalMemory,
    at_root: Option<AtRoot<'a>>,
}

impl fmt::Debug for Translator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Translator({:?})", self.space)
    }
}

impl Translator<'_> {
    /// Translates one address, as [`AddressSpace::translate`] does. Becomes part of the loop that calls it; what that does not use
    /// of a translation is not worked out.
    ///
    /// # Errors
    /// As [`AddressSpace::translate`].
    #[inline(always)]
    pub fn translate(&self, addr: VirtAddr) -> Result<Translation, Reason> {
        if let Some(at_root) = &self.at_root
            && let Some(found) = at_root.translate(addr.as_u64()).get()
        {
            return Ok(found);
        }
        // By value: what nobody has a reference to stays in registers.
        self.translate_further(addr)
    }

    /// The physical address of one address, if it leads anywhere; [`translate`](Self::translate) says why not. Half the work of that.
    #[inline(always)]
    pub fn phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        if let Some(at_root) = &self.at_root
            && let Some(phys) = at_root.phys(addr.as_u64()).get()
        {
            return Some(phys);
        }
        // By value: what nobody has a reference to stays in registers.
        self.phys_further(addr).get()
    }

    #[cold]
    #[inline(never)]
    fn phys_further(self, addr: VirtAddr) -> MaybePhys {
        MaybePhys::from(self.space.translate(self.memory, addr).ok().map(|found| found.phys))
    }

    /// Translates many addresses, as [`AddressSpace::translate_to`] does.
    #[inline(always)]
    pub fn translate_to(&self, addresses: &[VirtAddr], found: &mut [MaybePhys]) -> usize {
        if let ([addr], [found]) = (addresses, &mut *found) {
            *found = MaybePhys::from(self.phys(*addr));
            return usize::from(found.get().is_none());
        }
        self.space.translate_to(self.memory, addresses, found)
    }

    #[cold]
    #[inline(never)]
    fn translate_further(self, addr: VirtAddr) -> Result<Translation, Reason> {
        self.space.translate(self.memory, addr)
    }
}

impl PartialEq for AddressSpace {
    fn eq(&self, other: &Self) -> bool {
        let same_answers = match (&self.soft_faults, &other.soft_faults) {
            (Some(one), Some(other)) => ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other)),
            (None, None) => true,
            _ => false,
        };
        self.arch == other.arch && self.root == other.root && same_answers
    }
}

impl Eq for AddressSpace {}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let soft = if self.soft_faults.is_some() { ", soft faults" } else { "" };
        write!(f, "AddressSpace({}, root {}{soft})", self.arch.name, self.root)
    }
}

impl AddressSpace {
    /// The space below `root`, a root register's value (CR3): bits that are not part of the address are ignored.
    pub fn new(arch: &'static Architecture, root: u64) -> Self {
        let known = Known::of(arch);
        Self {
            arch,
            known,
            plain_walk: Known::plain_walk(known),
            root: PhysAddr::new(root & arch.root_mask),
            soft_faults: None,
        }
    }

    /// The same space with an operating system that is asked about entries that are not present.
    #[must_use]
    pub fn with_soft_faults(mut self, resolver: Arc<dyn SoftFaults>) -> Self {
        self.soft_faults = Some(resolver);
        self
    }

    /// Who is asked about entries that are not present.
    pub fn soft_faults(&self) -> Option<&Arc<dyn SoftFaults>> {
        self.soft_faults.as_ref()
    }

    /// The paging mode.
    pub fn architecture(&self) -> &'static Architecture {
        self.arch
    }

    /// Physical address of the root table.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Translates one address: at most one load per level, in place where the memory has a direct map, else one call each.
    ///
    /// # Errors
    /// The level at which the walk stopped, and why; or that the operating system paged the page out.
    #[inline(always)]
    pub fn translate(&self, memory: &dyn PhysicalMemory, addr: VirtAddr) -> Result<Translation, Reason> {
        if let Some(map) = memory.direct_map()
            && let Some(found) = self.translate_plain(map, addr)
        {
            return Ok(found);
        }
        self.translate_carefully(memory, addr.as_u64())
    }

    /// This space over one memory, for many translations one by one.
    ///
    /// ```
    /// # use memflow_core::{memory::*, paging::{x86, AddressSpace}, address::*};
    /// # let mut bytes = vec![0; 0x6000];
    /// # for (table, next) in [(0x1000, 0x2003_u64), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x5001)] {
    /// #     bytes[table..table + 8].copy_from_slice(&next.to_le_bytes());
    /// # }
    /// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x6000), facts: TargetFacts::default() };
    /// # let memory = BufferMemory::new(config, bytes)?;
    /// let space = AddressSpace::new(&x86::X64, 0x1000);
    /// let translator = space.over(&memory);
    /// assert_eq!(translator.translate(VirtAddr::new(0x123)).unwrap().phys, PhysAddr::new(0x5123));
    /// assert_eq!(translator.translate(VirtAddr::new(0x1000)), space.translate(&memory, VirtAddr::new(0x1000)));
    /// # Ok::<(), memflow_core::Error>(())
    /// ```
    pub fn over<'a>(&'a self, memory: &'a dyn PhysicalMemory) -> Translator<'a> {
        let at_root = memory.direct_map().and_then(|map| AtRoot::new(self.known, self.root, map));
        Translator { space: self, memory, at_root }
    }

    /// Translates one address whatever is special about it, or about the memory.
    #[cold]
    #[inline(never)]
    fn translate_carefully(&self, memory: &dyn PhysicalMemory, addr: u64) -> Result<Translation, Reason> {
        let result = match memory.direct_map() {
            Some(map) => self.in_place(map).translate(addr),
            None => self.translate_called(memory, addr),
        };
        match result {
            Ok(found) => Ok(found),
            Err(halt) => self.settle_one(memory, addr, &halt),
        }
    }

    /// Tables that lie in this process.
    #[inline]
    fn in_place<'a>(&self, map: &'a DirectMap) -> InPlace<'a> {
        InPlace { arch: self.arch, known: self.known, root: self.root, map }
    }

    /// Translates one address through calls.
    fn translate_called(&self, memory: &dyn PhysicalMemory, addr: u64) -> Result<Translation, Halt> {
        if !self.arch.is_canonical(addr) {
            return Err(Halt::not_canonical(self.root));
        }
        let tlb = Tlb::new(self.arch, self.root, memory, Trust::Kept);
        let (depth, node, asked) = match tlb.start(addr) {
            (Start::Page(found), _) => return Ok(found),
            (Start::Table(depth, node, asked), _) => (depth, node, asked),
        };
        let keep = |depth: usize, next: Next| {
            if let Some(level) = self.arch.levels.get(depth) {
                tlb.keep(level, self.arch.level_number(depth), addr, &next, asked);
            }
        };
        // A table is entered through an entry of the level above it.
        let entered = |depth: usize, node: Node| keep(depth.saturating_sub(1), Next::Table(node));
        let found = walk(self.arch, &Called { memory, tlb: &tlb }, depth, node, addr, entered)?;
        keep(self.arch.levels.len().saturating_sub(found.level.into()), Next::Page(found));
        Ok(found)
    }

    /// Forgets what walks of this space found, where `memory` has a [lookaside](PhysicalMemory::lookaside) that keeps it: what is
    /// translated from here on is asked for anew. For tables that others changed.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use memflow_core::{memory::*, paging::{x86, AddressSpace}, *};
    /// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
    /// # let mut bytes = vec![0; 0x4000];
    /// # bytes[0x1800..0x1804].copy_from_slice(&0x2003_u32.to_le_bytes());
    /// # bytes[0x2000..0x2004].copy_from_slice(&0x3003_u32.to_le_bytes());
    /// let device = MetricsLayer::new(Arc::new(BufferMemory::new(config, bytes)?));
    /// let metrics = device.metrics();
    /// let memory = LookasideLayer::over(Arc::new(device));
    /// let space = AddressSpace::new(&x86::X86, 0x1000);
    ///
    /// let translate = || space.translate(&memory, VirtAddr::new(0x8000_0123)).map(|found| found.phys);
    /// assert_eq!([translate(), translate()], [Ok(PhysAddr::new(0x3123)); 2]);
    /// assert_eq!(metrics.snapshot().reads.calls, 2);
    /// space.forget(&memory);
    /// assert_eq!((translate(), metrics.snapshot().reads.calls), (Ok(PhysAddr::new(0x3123)), 4));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn forget(&self, memory: &dyn PhysicalMemory) {
        tlb::forget(self.arch, self.root, memory);
    }

    /// Translates a batch of any size and order: duplicates, aliases, user and kernel addresses mixed. Every operation has an
    /// outcome afterwards, the same as [`translate`](Self::translate) gives for it alone.
    ///
    /// Memory without a direct map is called at most once per level of tables, and not for what its
    /// [lookaside](PhysicalMemory::lookaside) keeps of earlier walks; only when a read of neighbouring entries
    /// fails in part, once more for those behind the failure. Reads that a [`SoftFaults`] makes come on top.
    pub fn translate_batch(&self, memory: &dyn PhysicalMemory, ops: &mut [TranslateOp]) {
        if let [op] = ops {
            op.outcome = Some(self.translate(memory, op.addr));
            return;
        }
        let mut stopped = Vec::new();
        if let Some(map) = memory.direct_map() {
            self.in_place(map).translate_each(ops, |halt| self.resolver_for(halt).is_some(), &mut stopped);
        } else {
            let ranges: Vec<_> =
                ops.iter().enumerate().map(|(op, asked)| (op, asked.addr.as_u64(), asked.addr.as_u64())).collect();
            batch::walk_ranges(self.arch, self.root, memory, Trust::Kept, ranges.into_iter(), |walked| {
                if let Some(op) = ops.get_mut(walked.op) {
                    op.outcome = Some(walked.result.map_err(|halt| halt.reason()));
                }
                if let Err(halt) = &walked.result
                    && self.resolver_for(halt).is_some()
                {
                    stopped.push(walked);
                }
            });
        }
        self.settle(memory, &stopped, |walked| {
            if let Some(op) = ops.get_mut(walked.op) {
                op.outcome = Some(walked.result);
            }
        });
    }

    /// Translates many addresses into the shortest answer that there is, eight bytes each: the quickest way where the physical address is
    /// all that counts. Each address has its answer at its own index.
    ///
    /// Returns how many addresses have no answer: those that lead nowhere, and those behind the end of `found`. What `found` has
    /// behind the last address says "none". Why an address leads nowhere, and what page and rights there are where it leads, says
    /// [`translate`](Self::translate). Memory is called as by [`translate_batch`](Self::translate_batch).
    ///
    /// ```
    /// # use memflow_core::{memory::*, paging::{x86, AddressSpace, MaybePhys}, address::*, error::StopCause, Reason};
    /// # let mut bytes = vec![0; 0x6000];
    /// # for (table, next) in [(0x1000, 0x2003_u64), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x5001)] {
    /// #     bytes[table..table + 8].copy_from_slice(&next.to_le_bytes());
    /// # }
    /// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x6000), facts: TargetFacts::default() };
    /// # let memory = BufferMemory::new(config, bytes)?;
    /// # let space = AddressSpace::new(&x86::X64, 0x1000);
    /// // Words that may be pointers: which are?
    /// let words = [0x123, 0xffff_8000_0000_0000, 0x1000, 0x456].map(VirtAddr::new);
    /// let mut found = [MaybePhys::NONE; 4];
    /// let missing = space.translate_to(&memory, &words, &mut found);
    ///
    /// assert_eq!(missing, 2);
    /// assert_eq!(found.map(|found| found.get().is_some()), [true, false, false, true]);
    /// assert_eq!(found[3].get(), Some(PhysAddr::new(0x5456)));
    /// let Err(Reason::NotMapped(stop)) = space.translate(&memory, words[2]) else { panic!() };
    /// assert_eq!((stop.level, stop.cause), (1, StopCause::NotPresent));
    /// # Ok::<(), memflow_core::Error>(())
    /// ```
    pub fn translate_to(&self, memory: &dyn PhysicalMemory, addresses: &[VirtAddr], found: &mut [MaybePhys]) -> usize {
        if let ([addr], [found]) = (addresses, &mut *found) {
            *found = MaybePhys::from(self.over(memory).phys(*addr));
            return usize::from(found.get().is_none());
        }
        let count = addresses.len().min(found.len());
        let ((asked, behind), (found, none)) = (addresses.split_at(count), found.split_at_mut(count));
        none.fill(MaybePhys::NONE);
        let mut stopped = Vec::new();
        let may_know = |halt: &Halt| self.resolver_for(halt).is_some();
        let mut missing = match memory.direct_map() {
            Some(map) => self.in_place(map).translate_to(asked, found, may_know, &mut stopped),
            None => self.translate_called_to(memory, asked, found, &mut stopped),
        };
        self.settle(memory, &stopped, |walked| {
            if let (Ok(page), Some(place)) = (walked.result, found.get_mut(walked.op)) {
                *place = MaybePhys::new(page.phys);
                missing = missing.wrapping_sub(usize::from(place.get().is_some()));
            }
        });
        missing.wrapping_add(behind.len())
    }

    /// The same through calls; adds walks that stopped where somebody may know more to `stopped`.
    fn translate_called_to(
        &self,
        memory: &dyn PhysicalMemory,
        addresses: &[VirtAddr],
        found: &mut [MaybePhys],
        stopped: &mut Vec<Walked>,
    ) -> usize {
        found.fill(MaybePhys::NONE);
        let mut missing = addresses.len();
        let ranges: Vec<_> =
            addresses.iter().enumerate().map(|(op, addr)| (op, addr.as_u64(), addr.as_u64())).collect();
        batch::walk_ranges(self.arch, self.root, memory, Trust::Kept, ranges.into_iter(), |walked| {
            match (&walked.result, found.get_mut(walked.op)) {
                (Ok(page), Some(place)) => {
                    *place = MaybePhys::new(page.phys);
                    missing = missing.wrapping_sub(usize::from(place.get().is_some()));
                }
                (Err(halt), _) if self.resolver_for(halt).is_some() => stopped.push(walked),
                _ => {}
            }
        });
        missing
    }

    /// Translates, in place, everything that the tables map; refuses the rest as it is. To be believed only if the map lost nothing
    /// afterwards.
    pub(crate) fn translate_pages<A: Asked>(&self, map: &DirectMap, asked: &mut [A]) {
        self.in_place(map).translate_pages(asked);
    }

    /// The same for addresses in one slice and answers, as many, in another; what the tables do not map says "none".
    pub(crate) fn translate_pages_to(&self, map: &DirectMap, addresses: &[VirtAddr], found: &mut [MaybePhys]) {
        self.in_place(map).translate_to(addresses, found, |_| false, &mut Vec::new());
    }

    /// The physical address of one address, if every entry on its way is plain and every table at hand. Becomes part of its caller.
    #[inline(always)]
    pub(crate) fn phys_plain(&self, map: &DirectMap, addr: VirtAddr) -> Option<PhysAddr> {
        AtRoot::new(self.known, self.root, map)?.phys(addr.as_u64()).get()
    }

    /// Translates one address, if every entry on its way is plain and every table at hand.
    #[inline(always)]
    pub(crate) fn translate_plain(&self, map: &DirectMap, addr: VirtAddr) -> Option<Translation> {
        (self.plain_walk)(map, self.root, addr.as_u64()).get()
    }

    /// Walks all ranges `(op, first, last)` and calls `each` for every part of them: a page, or what an entry that leads nowhere
    /// covers. In order where the tables are in place and the operating system was not asked; in any order otherwise.
    pub(crate) fn walk_ranges(
        &self,
        memory: &dyn PhysicalMemory,
        trust: Trust,
        ranges: &[(usize, u64, u64)],
        mut each: impl FnMut(Walked<Reason>),
    ) {
        let mut stopped = Vec::new();
        let mut pass = |walked: Walked| match &walked.result {
            Err(halt) if self.resolver_for(halt).is_some() => stopped.push(walked),
            _ => each(walked.map_err(|halt| halt.reason())),
        };
        match memory.direct_map() {
            Some(map) => self.in_place(map).walk_ranges(ranges, &mut pass),
            None => batch::walk_ranges(self.arch, self.root, memory, trust, ranges.iter().copied(), &mut pass),
        }
        self.settle(memory, &stopped, each);
    }

    /// The pieces of all ranges, sorted by operation and address.
    pub(crate) fn pieces(&self, memory: &dyn PhysicalMemory, trust: Trust, ranges: &[(usize, u64, u64)]) -> Vec<Piece> {
        let mut parts = Vec::with_capacity(ranges.len());
        self.walk_ranges(memory, trust, ranges, |walked| parts.push(walked));
        pieces::merge(parts)
    }

    /// Who can be asked about a walk that stopped.
    #[inline]
    pub(super) fn resolver_for(&self, halt: &Halt) -> Option<&dyn SoftFaults> {
        self.soft_faults.as_deref().filter(|_| soft_fault::is_soft(halt))
    }

    /// Asks the operating system about one walk that stopped, if it may know more.
    #[cold]
    fn settle_one(&self, memory: &dyn PhysicalMemory, addr: u64, halt: &Halt) -> Result<Translation, Reason> {
        match self.resolver_for(halt) {
            Some(resolver) => soft_fault::settle_one(self.arch, resolver, memory, addr, halt),
            None => Err(halt.reason()),
        }
    }

    /// Asks the operating system about all walks that stopped.
    pub(super) fn settle(&self, memory: &dyn PhysicalMemory, stopped: &[Walked], each: impl FnMut(Walked<Reason>)) {
        if let Some(resolver) = self.soft_faults.as_deref() {
            soft_fault::settle(self.arch, resolver, memory, stopped, each);
        }
    }
}
