//! Whose memory it is.
//!
//! Owns: which processes of two systems are one and the same, and who maps a page. Must not know: how memory was compared.
//! Keeps: a page that several processes map counts for each of them; what no process maps is the kernel's own, a cache, or free.

use std::{collections::BTreeMap, time::Duration};

use memflow_core::{
    PhysAddr,
    os::{Os, ProcessInfo},
    paging::{ReverseMap, ReverseMapBuilder},
};

use super::super::mappings::add_processes;
use crate::failure::Outcome;

/// What stays the same while a process lives.
pub(super) type Identity = (u32, Duration);

/// The processes of one system, by the number that their space has in the map.
pub(super) struct Owners {
    listed: Vec<ProcessInfo>,
    spaces: Vec<Identity>,
    map: ReverseMap,
    /// What could not be looked at.
    pub(super) problems: Vec<String>,
}

/// A process of either system.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) in_a: bool,
    pub(super) in_b: bool,
    /// Changed pages that it maps in either.
    pub(super) changed: u64,
}

fn identity(process: &ProcessInfo) -> Identity {
    (process.pid, process.start_time)
}

impl Owners {
    /// Reads the page tables of every process.
    ///
    /// # Errors
    /// When the list of processes cannot be had.
    pub(super) fn new(os: &dyn Os) -> Outcome<Self> {
        let mut builder = ReverseMapBuilder::default();
        let list = os.processes()?;
        let (spaces, mut problems) = add_processes(os, &list, &mut builder);
        let map = builder.build();
        problems.extend(
            map.holes().iter().map(|(_, hole)| format!("tables of {} were not read: {}", hole.range, hole.reason)),
        );
        Ok(Self { spaces: spaces.iter().map(identity).collect(), listed: list.items, map, problems })
    }

    fn of(&self, page: PhysAddr) -> impl Iterator<Item = Identity> {
        self.map.find(page).into_iter().filter_map(|mapping| self.spaces.get(mapping.space).copied())
    }
}

/// Every process of both systems with the changed pages that it maps, and how many pages no process maps.
pub(super) fn attribute(
    a: &Owners,
    b: &Owners,
    changed: impl Iterator<Item = PhysAddr>,
) -> (BTreeMap<Identity, Owner>, u64) {
    let mut owners: BTreeMap<Identity, Owner> = BTreeMap::new();
    for process in a.listed.iter().filter(|process| !process.kernel_thread) {
        let owner = owners.entry(identity(process)).or_default();
        owner.name.clone_from(&process.name);
        owner.in_a = true;
    }
    for process in b.listed.iter().filter(|process| !process.kernel_thread) {
        let owner = owners.entry(identity(process)).or_default();
        // The name of now, if it has changed.
        owner.name.clone_from(&process.name);
        owner.in_b = true;
    }
    let mut nobody: u64 = 0;
    for page in changed {
        let whose = whose(a, b, page);
        for identity in &whose {
            owners.entry(*identity).or_default().changed += 1;
        }
        nobody += u64::from(whose.is_empty());
    }
    (owners, nobody)
}

/// Who maps a page in either system, each once.
pub(super) fn whose(a: &Owners, b: &Owners, page: PhysAddr) -> Vec<Identity> {
    let mut whose: Vec<Identity> = a.of(page).chain(b.of(page)).collect();
    whose.sort_unstable();
    whose.dedup();
    whose
}
