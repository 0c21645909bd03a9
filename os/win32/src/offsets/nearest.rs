//! Offsets of a build that is near, where the kernel's own is not in the table.
//!
//! Owns: which builds are tried, and when one is taken. Must not know: how memory is looked at.
//! Keeps: a build is taken only if it contradicts nothing that the kernel itself tells, and processes in memory make sense by it; of
//! another build's places in the image nothing is taken.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use super::{Layout, Row, table::rows};

/// Numbers that must agree where no process tells.
const ENOUGH: usize = 5;

/// What processes in memory say of a layout: how many made sense by it and how many did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Check {
    pub(crate) sensible: usize,
    pub(crate) senseless: usize,
}

/// A row, and how it compares with what the kernel tells.
struct Compared {
    row: Row,
    distance: u32,
    agree: usize,
    /// Sizes of structures that differ: they may, within a build.
    sizes: usize,
}

/// Adds to `known` what the nearest build says that agrees with it.
pub(crate) fn nearest(
    build: u32,
    known: Layout,
    check: &dyn Fn(&Layout) -> Check,
    evidence: &mut Vec<String>,
) -> Layout {
    let mut compared: Vec<Compared> = rows().filter_map(|row| compare(row, build, &known)).collect();
    compared.sort_by_key(|one| (one.distance, one.sizes));
    // Rows of one build differ in their places in the image only.
    compared.dedup_by_key(|one| (one.row.build(), one.sizes));
    for one in compared {
        let mut layout = known.clone();
        let (version, same) = (one.row.version(), one.distance == 0);
        let from = format!("table of builds, {version}, which is near and agrees with this kernel");
        for (name, value) in one.row.numbers().filter(|(name, _)| !name.starts_with("rva:")) {
            // What differs within a build is not taken from another.
            if !name.starts_with("sizeof(") || layout.find(name).is_none() {
                layout.add(name, value, from.clone());
            }
        }
        let Check { sensible, senseless } = check(&layout);
        let processes = sensible > senseless.saturating_mul(8);
        let told = format!(
            "{} numbers of the kernel agree, {sensible} processes make sense by it, {senseless} do not",
            one.agree
        );
        // The same build may have no process in memory; another must have both.
        let taken = match same {
            true => processes || (one.agree >= ENOUGH && senseless == 0),
            false => processes && one.agree >= ENOUGH,
        };
        evidence.push(format!("offsets of {version}: {}: {told}", if taken { "taken" } else { "refused" }));
        if taken {
            return layout;
        }
    }
    known
}

/// The row, unless it contradicts what is known.
fn compare(row: Row, build: u32, known: &Layout) -> Option<Compared> {
    let mut one = Compared { row, distance: row.build()?.abs_diff(build), agree: 0, sizes: 0 };
    for (name, value) in row.numbers() {
        match known.find(name) {
            None => {}
            Some(other) if other == value => one.agree = one.agree.saturating_add(1),
            Some(_) if name.starts_with("sizeof(") => one.sizes = one.sizes.saturating_add(1),
            Some(_) => return None,
        }
    }
    Some(one)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    fn known(peb: u64) -> Layout {
        let mut known = Layout::default();
        for (name, value) in [
            ("_EPROCESS.Peb", peb),
            ("_KTHREAD.Teb", 0xf0),
            ("_KTHREAD.State", 0x184),
            ("_KPROCESS.DirectoryTableBase", 0x28),
            ("_KTHREAD.KernelStack", 0x58),
            ("sizeof(_EPROCESS)", 0x850),
        ] {
            known.add(name, value, "KDBG");
        }
        known
    }

    #[test]
    fn build_that_agrees_is_taken_without_its_places() {
        let mut evidence = Vec::new();
        let layout = nearest(17763, known(0x3f8), &|_| Check { sensible: 1, senseless: 0 }, &mut evidence);
        assert_eq!(layout.find("_EPROCESS.ImageFileName"), Some(0x450));
        assert_eq!(layout.find("_EPROCESS.VadRoot"), Some(0x628));
        assert_eq!(layout.find("rva:PsActiveProcessHead"), None);
        assert_eq!(layout.find("sizeof(_EPROCESS)"), Some(0x850));
        assert_eq!(evidence.len(), 1);
    }

    #[test]
    fn build_that_contradicts_is_refused() {
        let mut evidence = Vec::new();
        let all_well = |_: &Layout| Check { sensible: 9, senseless: 0 };
        assert_eq!(nearest(17763, known(0x123), &all_well, &mut evidence), known(0x123));
        // Nothing is known of the kernel but its build, and no process makes sense.
        let none = |_: &Layout| Check { sensible: 0, senseless: 3 };
        assert_eq!(nearest(17763, Layout::default(), &none, &mut evidence), Layout::default());
        let nobody = |_: &Layout| Check::default();
        assert_eq!(nearest(17700, known(0x3f8), &nobody, &mut evidence), known(0x3f8));
    }
}
