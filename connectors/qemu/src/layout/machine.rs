//! Which physical addresses the RAM of QEMU's machines has.
//!
//! Owns: the rules of the machine types that are known. Must not know: where that RAM lies on the host.
//! Keeps: a size for which the rule is not known is refused.
//! Source: QEMU hw/i386/pc_piix.c (`pc_init1`), hw/i386/pc_q35.c (`pc_q35_init`), hw/i386/pc.c (`pc_memory_init`), hw/arm/virt.c
//! (`base_memmap`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Error, PhysAddr, PhysRange, Result,
    memory::{Run, RunMap},
};

const GIB: u64 = 1 << 30;
/// From this size on, RAM may be moved above 1 TiB, away from addresses that AMD's processors reserve.
const MAY_BE_MOVED: u64 = 1000 * GIB;

/// A machine type whose rules are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineType {
    /// `pc`, `pc-i440fx-…`
    I440fx,
    /// The same of releases before 2.0, which split RAM elsewhere.
    I440fxBefore2,
    /// `q35`, `pc-q35-…`
    Q35,
    /// `virt` with 64-bit Arm processors.
    Virt,
}

impl MachineType {
    /// The machine type of this name.
    pub fn of(name: &str) -> Option<Self> {
        let is =
            |family: &str| name == family || name.strip_prefix(family).is_some_and(|rest| rest.starts_with(['-', '+']));
        if is("q35") || is("pc-q35") {
            Some(Self::Q35)
        } else if ["pc-i440fx-1.", "pc-1.", "pc-0."].iter().any(|old| name.starts_with(old)) {
            Some(Self::I440fxBefore2)
        } else if name == "pc" || name.starts_with("pc+") || is("pc-i440fx") {
            Some(Self::I440fx)
        } else if is("virt") {
            Some(Self::Virt)
        } else {
            None
        }
    }

    /// The addresses of `size` bytes of RAM; offsets are into the RAM. On a PC, the display's window and what lies between it and
    /// 1 MiB is left out: whether that is RAM or ROM changes while the machine runs.
    ///
    /// # Errors
    /// The rule for so much RAM is not known.
    pub fn runs(self, size: u64, max_below_4g: Option<u64>) -> Result<RunMap> {
        let run = |phys: u64, offset: u64, len: u64| {
            let range = PhysRange::new(PhysAddr::new(phys), len);
            range.map(|range| Run { range, offset }).ok_or(Error::Range { address: PhysAddr::new(phys).into(), len })
        };
        if size >= MAY_BE_MOVED {
            return Err(Error::Unsupported {
                what: format!("the layout of {size:#x} bytes of RAM without a monitor"),
                why: "QEMU may move RAM above 1 TiB; give the guest a monitor, or the layout with map=".to_owned(),
            });
        }
        if self == Self::Virt {
            return RunMap::new([run(GIB, 0, size)?]);
        }
        let low = self.low_memory(size, max_below_4g).min(size);
        let high = size.saturating_sub(low);
        let first = run(0, 0, low.min(0xa_0000))?;
        let second = run(0x10_0000, 0x10_0000, low.saturating_sub(0x10_0000))?;
        RunMap::new([first, second, run(4 * GIB, low, high)?])
    }

    /// RAM that may lie below 4 GiB.
    fn low_memory(self, size: u64, limit: Option<u64>) -> u64 {
        match self {
            Self::Q35 => {
                let low = if size >= 0xb000_0000 { 0x8000_0000 } else { 0xb000_0000 };
                // A limit of zero is none.
                limit.filter(|limit| *limit > 0).map_or(low, |limit| low.min(limit))
            }
            _ => {
                let low = limit.filter(|limit| *limit > 0).unwrap_or(0xe000_0000);
                if size >= low && self == Self::I440fx { low.min(0xc000_0000) } else { low }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn high(machine: MachineType, size: u64, limit: Option<u64>) -> (u64, u64) {
        let map = machine.runs(size, limit).unwrap();
        let low = map.runs().iter().filter(|run| run.range.start() < PhysAddr::new(4 * GIB));
        let low = low.filter_map(|run| run.range.end()).max().unwrap().as_u64();
        (
            low,
            map.runs()
                .iter()
                .filter(|run| run.range.start() == PhysAddr::new(4 * GIB))
                .map(|run| run.range.len())
                .sum(),
        )
    }

    #[test]
    fn names_with_and_without_version() {
        for (name, machine) in [
            ("q35", Some(MachineType::Q35)),
            ("pc-q35-8.1+pve0", Some(MachineType::Q35)),
            ("pc-q35-rhel9.2.0", Some(MachineType::Q35)),
            ("pc", Some(MachineType::I440fx)),
            ("pc+pve0", Some(MachineType::I440fx)),
            ("pc-i440fx-7.2", Some(MachineType::I440fx)),
            ("pc-i440fx-1.7", Some(MachineType::I440fxBefore2)),
            ("virt-6.2", Some(MachineType::Virt)),
            ("virtual", None),
            ("microvm", None),
            ("pc98", None),
        ] {
            assert_eq!(MachineType::of(name), machine, "{name}");
        }
    }

    #[test]
    fn ram_is_split_where_qemu_splits_it() {
        let gib = |count: u64| count * GIB;
        assert_eq!(high(MachineType::Q35, gib(2), None), (gib(2), 0));
        assert_eq!(high(MachineType::Q35, 0xb000_0000 - 1, None), (0xb000_0000 - 1, 0));
        assert_eq!(high(MachineType::Q35, 0xb000_0000, None), (gib(2), 0xb000_0000 - gib(2)));
        assert_eq!(high(MachineType::Q35, gib(4), Some(gib(1))), (gib(1), gib(3)));
        assert_eq!(high(MachineType::I440fx, 0xe000_0000 - 1, None), (0xe000_0000 - 1, 0));
        assert_eq!(high(MachineType::I440fx, 0xe000_0000, None), (gib(3), 0xe000_0000 - gib(3)));
        assert_eq!(high(MachineType::I440fx, gib(5), Some(gib(2))), (gib(2), gib(3)));
        assert_eq!(high(MachineType::I440fxBefore2, gib(4), None), (0xe000_0000, gib(4) - 0xe000_0000));
        assert!(MachineType::Q35.runs(MAY_BE_MOVED, None).is_err());
        assert_eq!(MachineType::Virt.runs(gib(5), None).unwrap().to_string(), "0x40000000-0x17fffffff@0x0");
    }
}
