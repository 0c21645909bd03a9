//! Who may use an answer, and for how long.
//!
//! Owns: [`Lookaside`]: epochs, the numbers of owners, the order of marks, reads and writes.
//! Must not know: slots and versions (`sets`), marks (`sources`), what keys and answers mean.
//! Keeps: an answer is given only to its owner, in the epoch in which it was worked out, and within the validity of all that it was
//! worked out from; once a write has
//! returned, no batch that begins later sees an answer from before it; no lock is held, and none is waited for.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use smallvec::SmallVec;

use super::{
    super::{Liveness, PhysWrite, Validity, validity::AgeLimit},
    sets::{Key, Sets},
    sources::Sources,
};
use crate::{
    address::PhysRange,
    error::{Error, Result},
};

/// How a [`Lookaside`] is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookasideConfig {
    /// Answers that it holds, such as pages that an address leads to; beside them a quarter as many steps on the way to one, such
    /// as tables. They take 51 bytes for each answer, from the first use on. At most [`Lookaside::MOST_ANSWERS`].
    pub answers: usize,
    /// How long an answer is used, counted from when the first of the bytes were asked for that it was worked out from: for live
    /// memory [`Lookaside::LIVE_VALIDITY`], if its liveness decides.
    pub validity: Validity,
}

impl Default for LookasideConfig {
    /// 65,536 answers (3.2 MiB), valid as the liveness of the memory says.
    fn default() -> Self {
        Self { answers: 1 << 16, validity: Validity::ByLiveness }
    }
}

/// What was worked out from bytes of a memory, for as long as they stay as they were: translations, so that reading through page
/// tables of memory that is slow to call takes one call and not one for each level.
///
/// Belongs to one memory, which lends it to whoever works something out ([`PhysicalMemory::lookaside`]). It forgets
/// * what depends on bytes that are written through that memory, when the write has been carried out;
/// * what its [validity](LookasideConfig::validity) no longer covers;
/// * one owner's answers ([`AddressSpace::forget`]) or all of them ([`flush`](Self::flush)), on request, at once;
/// * what was filled in longest ago, when it needs room.
///
/// Threads use it without waiting for each other. Its size is bounded, and nothing is allocated after the first use.
///
/// [`PhysicalMemory::lookaside`]: super::super::PhysicalMemory::lookaside
/// [`AddressSpace::forget`]: crate::paging::AddressSpace::forget
pub struct Lookaside {
    age: AgeLimit,
    answers: usize,
    /// Answers of earlier epochs are forgotten. Counts from one: zero marks what was never looked at.
    epoch: AtomicU64,
    /// The number of the next owner. None is given twice, so what is left of a forgotten one is never found.
    next_owner: AtomicU64,
    /// `None` inside when this machine does not have the memory: then nothing is kept.
    shelves: OnceLock<Option<Shelves>>,
}

#[derive(Debug)]
struct Shelves {
    owners: Sets,
    ends: Sets,
    steps: Sets,
    sources: Sources,
}

/// Who an answer belongs to, in two words of its own: the same words, the same owner. The first is not zero.
pub(crate) type Owner = [u64; 2];

/// What an answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// What was asked for.
    End,
    /// A step on the way to it.
    Step,
}

/// An answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) value: u64,
    pub(crate) extra: u16,
    /// When the first of the bytes were asked for that it was worked out from.
    pub(crate) asked: u64,
}

/// The use that one batch makes of the answers of one owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    shelves: &'a Shelves,
    age: &'a AgeLimit,
    epoch: u64,
    /// The number of the owner, as the second word of a key has it.
    owner: u64,
    is_new: bool,
    now: u64,
}

/// Bits of the second word that hold the extra part of an answer; those above hold the owner's number.
const EXTRA_BITS: u32 = 16;
const OWNER_MASK: u64 = u64::MAX << EXTRA_BITS;

impl fmt::Debug for Lookaside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lookaside({} answers)", self.answers)
    }
}

impl Lookaside {
    /// How long answers about live memory are used unless told otherwise. A walk over a device takes about as long as a few calls,
    /// and its answer is as old as that when it arrives; this is little more, and most of what is read one after the other lies in
    /// tables that were just used.
    pub const LIVE_VALIDITY: Duration = Duration::from_millis(5);
    /// The most answers, which take 3.2 GiB.
    pub const MOST_ANSWERS: usize = 1 << 26;

    /// One for a memory of this liveness. Takes memory for answers when it is first used.
    ///
    /// # Errors
    /// [`Error::Argument`] for no answers, for more than [`MOST_ANSWERS`](Self::MOST_ANSWERS), and for a validity of zero.
    pub fn new(config: LookasideConfig, liveness: Liveness) -> Result<Self> {
        let LookasideConfig { answers, validity } = config;
        if !(1..=Self::MOST_ANSWERS).contains(&answers) {
            return Err(Error::Argument {
                what: "lookaside answers".into(),
                expected: format!("1 to {}", Self::MOST_ANSWERS).into(),
                found: answers.to_string(),
            });
        }
        let without = "a nanosecond keeps next to nothing";
        Ok(Self::with_age(answers, validity.limit(liveness, Self::LIVE_VALIDITY, "lookaside", without)?))
    }

    /// One of the default size for a memory of this liveness.
    pub fn by_liveness(liveness: Liveness) -> Self {
        let limit = match liveness {
            Liveness::Live => Some(Self::LIVE_VALIDITY),
            Liveness::Frozen => None,
        };
        Self::with_age(LookasideConfig::default().answers, AgeLimit::new(limit))
    }

    pub(in crate::memory) fn with_age(answers: usize, age: AgeLimit) -> Self {
        Self { age, answers, epoch: AtomicU64::new(1), next_owner: AtomicU64::new(1), shelves: OnceLock::new() }
    }

    /// Forgets everything: what is asked from here on is worked out anew. For memory that others changed.
    pub fn flush(&self) {
        self.epoch.fetch_add(1, SeqCst);
    }

    /// Forgets what depends on these addresses, after others wrote to them.
    pub fn written(&self, range: PhysRange) {
        // Whoever reads the bytes marks them first: either the mark is seen here, or the bytes as they were written are read there.
        fence(SeqCst);
        if let Some(Some(shelves)) = self.shelves.get() {
            // Answers of earlier epochs, and those still being worked out in one, are forgotten already.
            let epoch = self.epoch.load(SeqCst);
            if shelves.sources.is_marked(range, epoch) {
                self.flush();
            }
        }
    }

    /// Forgets what depends on the addresses of these writes as soon as the returned guard is dropped: once they have been carried
    /// out, whatever became of them. For the memory that it belongs to.
    #[must_use = "dropped after the writes"]
    pub fn writing(&self, ops: &[PhysWrite<'_>]) -> Writing<'_> {
        Writing { lookaside: self, ranges: ops.iter().filter_map(PhysWrite::touched).collect() }
    }

    /// Forgets the answers of one owner.
    pub(crate) fn forget(&self, owner: Owner) {
        if let Some(Some(shelves)) = self.shelves.get()
            && !shelves.owners.remove(owner_key(owner))
        {
            self.flush();
        }
    }

    /// Begins a batch of `owner`; `None` when nothing can be kept.
    #[inline]
    pub(crate) fn session(&self, owner: Owner) -> Option<Session<'_>> {
        let shelves = self.shelves.get_or_init(|| Shelves::new(self.answers)).as_ref()?;
        let now = self.age.now();
        let epoch = self.epoch.load(SeqCst);
        let key = owner_key(owner);
        let known = shelves.owners.find(key).filter(|[.., of]| *of == epoch);
        let number = known.map_or_else(|| self.next_owner.fetch_add(1, Relaxed), |[_, _, number, _]| number);
        // Numbers last for as long as one does not take one for each nanosecond of three days.
        let number = Some(number).filter(|number| number >> (u64::BITS - EXTRA_BITS) == 0)?;
        if known.is_none() {
            shelves.owners.put(key, [key.first, key.second, number, epoch], |[.., of]| *of != epoch);
        }
        Some(Session { shelves, age: &self.age, epoch, owner: number << EXTRA_BITS, is_new: known.is_none(), now })
    }
}

impl Shelves {
    fn new(answers: usize) -> Option<Self> {
        Some(Self {
            owners: Sets::new(answers / 16)?,
            ends: Sets::new(answers)?,
            steps: Sets::new(answers / 4)?,
            sources: Sources::new(answers / 2)?,
        })
    }

    #[inline]
    fn of(&self, kind: Kind) -> &Sets {
        match kind {
            Kind::End => &self.ends,
            Kind::Step => &self.steps,
        }
    }
}

fn owner_key([first, second]: Owner) -> Key {
    Key { first, second, mask: u64::MAX }
}

impl Session<'_> {
    /// True when nothing of this owner is kept.
    #[inline]
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// When what this batch asks for is asked for.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// The answer to `key`, which is not zero.
    #[inline]
    pub(crate) fn find(&self, kind: Kind, key: u64) -> Option<Answer> {
        let [_, second, value, then] = self.shelves.of(kind).find(self.key(key))?;
        self.age.allows(then, self.now).then_some(Answer { value, extra: (second & !OWNER_MASK) as u16, asked: then })
    }

    /// Keeps an answer that was worked out from bytes read after [`will_read`](Self::will_read) said so, in this session.
    pub(crate) fn keep(&self, kind: Kind, key: u64, answer: Answer) {
        let words = [key, self.owner | u64::from(answer.extra), answer.value, answer.asked];
        let dead = |[_, _, _, then]: &[u64; 4]| !self.age.allows(*then, self.now);
        // Left out where another thread does not come to an end.
        self.shelves.of(kind).put(self.key(key), words, dead);
    }

    /// Says which bytes will be read next, for answers to be worked out from them.
    pub(crate) fn will_read(&self, ranges: impl Iterator<Item = PhysRange>) {
        self.shelves.sources.mark(ranges, self.epoch);
    }

    #[inline]
    fn key(&self, first: u64) -> Key {
        Key { first, second: self.owner, mask: OWNER_MASK }
    }
}

/// Writes that are being carried out, see [`Lookaside::writing`].
#[derive(Debug)]
pub struct Writing<'a> {
    lookaside: &'a Lookaside,
    ranges: SmallVec<[PhysRange; 4]>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        for range in &self.ranges {
            self.lookaside.written(*range);
        }
    }
}
