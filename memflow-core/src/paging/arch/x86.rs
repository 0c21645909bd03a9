//! The paging modes of x86, and the choice among them by control registers.
//!
//! Owns: one `static` per mode. Must not know: how a table is read.
//! Keeps: reserved bits as the processor checks them, with the widest physical address (52 bits) and no-execute enabled. A narrower
//! processor refuses more entries; none that it accepts is refused here.
//! Source: Intel SDM volume 3A, chapter "Paging": the tables "Format of …" of each mode, and "Paging Modes and Control Bits".

use super::{Architecture, BitTest, EntryFormat, EntrySize, Level, MovedBits, PageState};
use crate::{
    error::{Error, Result},
    memory::X86Registers,
    paging::AddressSpace,
};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;

/// Bits `low` to `high`, both included.
const fn bits(low: u32, high: u32) -> u64 {
    u64::MAX.wrapping_shl(low) & u64::MAX.wrapping_shr(63u32.wrapping_sub(high))
}

/// Bits 62 to 52: ignored by 4-level and 5-level paging, reserved by PAE.
const ABOVE_ADDRESS: u64 = bits(52, 62);

const STATE: PageState =
    PageState { accessed: BitTest::set(ACCESSED), dirty: BitTest::set(DIRTY), global: BitTest::set(GLOBAL) };

/// An entry with the usual rights.
const fn entry(address: u64, reserved: u64) -> EntryFormat {
    EntryFormat {
        address,
        moved: MovedBits::NONE,
        reserved,
        writable: BitTest::set(WRITABLE),
        user: BitTest::set(USER),
        no_execute: BitTest::set(NO_EXECUTE),
    }
}

/// A level whose entries lead to tables, or to pages of their own size when bit 7 is set.
const fn directory(shift: u8, reserved: u64, page_reserved: u64) -> Level {
    Level {
        shift,
        index_bits: 9,
        page_when: BitTest::set(PAGE_SIZE),
        table: entry(bits(12, 51), reserved),
        // Bit 12 is PAT, the bits from there to the page's size must be zero.
        page: entry(bits(shift as u32, 51), bits(13, (shift as u32).wrapping_sub(1)) | page_reserved),
    }
}

/// A level of base pages; bit 7 is PAT.
const fn base_pages(reserved: u64) -> Level {
    Level {
        shift: 12,
        index_bits: 9,
        page_when: BitTest::ALWAYS,
        table: EntryFormat::INVALID,
        page: entry(bits(12, 51), reserved),
    }
}

/// A level without pages: bit 7 must be zero.
const fn tables_only(shift: u8) -> Level {
    Level {
        shift,
        index_bits: 9,
        page_when: BitTest::NEVER,
        table: entry(bits(12, 51), PAGE_SIZE),
        page: EntryFormat::INVALID,
    }
}

const PT: Level = base_pages(0);
const PD: Level = directory(21, 0, 0);
const PDPT: Level = directory(30, 0, 0);
const PML4: Level = tables_only(39);
const PML5: Level = tables_only(48);

/// 64-bit mode with the given levels.
const fn long_mode(name: &'static str, virtual_bits: u8, levels: &'static [Level]) -> Architecture {
    Architecture {
        name,
        pointer_size: 8,
        virtual_bits,
        sign_extended: true,
        entry_size: EntrySize::Eight,
        // Below are the PCID or cache bits, above are the bits of linear-address masking.
        root_mask: bits(12, 51),
        present: BitTest::set(PRESENT),
        state: STATE,
        levels,
    }
}

/// 64-bit mode with four levels: 48-bit canonical addresses; pages of 4 KiB, 2 MiB, 1 GiB.
pub static X64: Architecture = long_mode("x86-64 4-level", 48, &[PML4, PDPT, PD, PT]);

/// 64-bit mode with five levels (LA57): 57-bit canonical addresses; pages of 4 KiB, 2 MiB, 1 GiB.
pub static X64_LA57: Architecture = long_mode("x86-64 5-level", 57, &[PML5, PML4, PDPT, PD, PT]);

/// 32-bit mode with 64-bit entries (PAE): pages of 4 KiB and 2 MiB.
pub static X86_PAE: Architecture = Architecture {
    name: "x86 PAE",
    pointer_size: 4,
    virtual_bits: 32,
    sign_extended: false,
    entry_size: EntrySize::Eight,
    // Four entries of eight bytes, aligned to their size; the register is 32 bits wide.
    root_mask: bits(5, 31),
    present: BitTest::set(PRESENT),
    state: STATE,
    levels: &[
        Level {
            shift: 30,
            index_bits: 2,
            page_when: BitTest::NEVER,
            // Without rights of its own: bits 1, 2, 6 to 8 and 52 to 63 must be zero. So must bit 5 on processors, but QEMU sets
            // it when it walks (`target/i386/tcg/sysemu/excp_helper.c`), and real guests are seen with it.
            table: EntryFormat {
                writable: BitTest::ALWAYS,
                user: BitTest::ALWAYS,
                no_execute: BitTest::NEVER,
                ..entry(bits(12, 51), bits(1, 2) | bits(6, 8) | ABOVE_ADDRESS | NO_EXECUTE)
            },
            page: EntryFormat::INVALID,
        },
        directory(21, ABOVE_ADDRESS, ABOVE_ADDRESS),
        base_pages(ABOVE_ADDRESS),
    ],
};

/// A level of 32-bit entries: ten index bits, no no-execute.
const fn narrow(shift: u8, page_when: BitTest, table: EntryFormat, page: EntryFormat) -> Level {
    Level { shift, index_bits: 10, page_when, table, page }
}

/// A 32-bit entry.
const fn narrow_entry(address: u64, reserved: u64) -> EntryFormat {
    EntryFormat { no_execute: BitTest::NEVER, ..entry(address, reserved) }
}

/// 32-bit mode with two levels.
const fn two_levels(name: &'static str, levels: &'static [Level]) -> Architecture {
    Architecture {
        name,
        pointer_size: 4,
        virtual_bits: 32,
        sign_extended: false,
        entry_size: EntrySize::Four,
        root_mask: bits(12, 31),
        present: BitTest::set(PRESENT),
        state: STATE,
        levels,
    }
}

const NARROW_TABLE: EntryFormat = narrow_entry(bits(12, 31), 0);
const NARROW_PT: Level = narrow(12, BitTest::ALWAYS, EntryFormat::INVALID, narrow_entry(bits(12, 31), 0));

/// 32-bit mode with two levels and large pages (CR4.PSE): pages of 4 KiB and 4 MiB, the latter anywhere in 40 bits (PSE-36).
pub static X86: Architecture = two_levels(
    "x86 32-bit",
    &[
        narrow(
            22,
            BitTest::set(PAGE_SIZE),
            NARROW_TABLE,
            // Bits 13 to 20 are bits 32 to 39 of the address, bit 21 must be zero.
            EntryFormat {
                moved: MovedBits { mask: bits(13, 20), left: 19 },
                ..narrow_entry(bits(22, 31), bits(21, 21))
            },
        ),
        NARROW_PT,
    ],
);

/// 32-bit mode with two levels and without large pages (CR4.PSE off): bit 7 of a directory entry means nothing.
pub static X86_NO_PSE: Architecture = two_levels(
    "x86 32-bit without large pages",
    &[narrow(22, BitTest::NEVER, NARROW_TABLE, EntryFormat::INVALID), NARROW_PT],
);

const _: () = assert!(X64.is_consistent() && X64_LA57.is_consistent() && X86_PAE.is_consistent());
const _: () = assert!(X86.is_consistent() && X86_NO_PSE.is_consistent());

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_PCIDE: u64 = 1 << 17;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// The address space that a vCPU uses: CR0, CR3 and CR4 choose mode and root.
///
/// EFER tells PAE from 64-bit mode. Where the source does not record it (QEMU's dumps), 64-bit mode follows from any register
/// that has bits above the 32nd, or from a CR4 bit that exists in 64-bit mode only.
///
/// # Errors
/// [`Error::Unsupported`] when paging is off, when a needed register is not recorded, or when registers contradict each other.
pub fn from_registers(registers: &X86Registers) -> Result<AddressSpace> {
    let missing = |name: &str| Error::Unsupported {
        what: format!("a vCPU without a recorded {name}"),
        why: "the paging mode and the root of the page tables follow from CR0, CR3 and CR4".to_owned(),
    };
    let cr0 = registers.cr0.ok_or_else(|| missing("CR0"))?;
    let cr3 = registers.cr3.ok_or_else(|| missing("CR3"))?;
    let cr4 = registers.cr4.ok_or_else(|| missing("CR4"))?;
    if cr0 & CR0_PG == 0 {
        return Err(Error::Unsupported {
            what: format!("a vCPU with paging off (CR0 {cr0:#x})"),
            why: "it has no virtual addresses yet; take the snapshot later in its boot, or read physical memory"
                .to_owned(),
        });
    }
    let long = match registers.efer {
        Some(efer) => Some(efer & (EFER_LMA | EFER_LME) != 0),
        None => wide_registers(registers, cr4).then_some(true),
    };
    let arch = match (cr4 & CR4_PAE != 0, long) {
        (true, Some(true)) if cr4 & CR4_LA57 != 0 => &X64_LA57,
        (true, Some(true)) => &X64,
        (true, Some(false)) => &X86_PAE,
        (true, None) => {
            return Err(Error::Unsupported {
                what: format!("a vCPU in PAE or 64-bit mode (CR4 {cr4:#x}, EFER not recorded)"),
                why: "EFER tells which of the two it is; use a format that records it, or name the paging mode"
                    .to_owned(),
            });
        }
        (false, Some(true)) => {
            return Err(Error::Unsupported {
                what: format!("a vCPU in 64-bit mode without CR4.PAE (CR4 {cr4:#x})"),
                why: "no processor can be in this state; the registers are damaged".to_owned(),
            });
        }
        (false, _) if cr4 & CR4_PSE != 0 => &X86,
        (false, _) => &X86_NO_PSE,
    };
    Ok(AddressSpace::new(arch, cr3))
}

/// True when a register holds what only 64-bit mode can put there.
fn wide_registers(registers: &X86Registers, cr4: u64) -> bool {
    let X86Registers { cr2, cr3, rip, rsp, gs_base, kernel_gs_base, idtr_base, gdtr_base, lstar, .. } = *registers;
    cr4 & (CR4_LA57 | CR4_PCIDE) != 0
        || [cr2, cr3, rip, rsp, gs_base, kernel_gs_base, idtr_base, gdtr_base, lstar]
            .into_iter()
            .flatten()
            .any(|value| value > u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn registers(cr0: u64, cr4: u64, efer: Option<u64>) -> X86Registers {
        X86Registers { cr0: Some(cr0), cr3: Some(0x1234_5678_9abc), cr4: Some(cr4), efer, ..X86Registers::default() }
    }

    fn mode(cr4: u64, efer: u64) -> &'static Architecture {
        from_registers(&registers(CR0_PG, cr4, Some(efer))).unwrap().architecture()
    }

    #[test]
    fn registers_choose_the_mode() {
        assert_eq!(mode(0, 0), &X86_NO_PSE);
        assert_eq!(mode(CR4_PSE, 0), &X86);
        assert_eq!(mode(CR4_PSE | CR4_PAE, 0), &X86_PAE);
        assert_eq!(mode(CR4_PAE, EFER_LME), &X64);
        assert_eq!(mode(CR4_PAE | CR4_LA57, EFER_LME | EFER_LMA), &X64_LA57);
    }

    #[test]
    fn root_loses_what_is_not_address() {
        let root = |cr4, efer| from_registers(&registers(CR0_PG, cr4, Some(efer))).unwrap().root().as_u64();
        assert_eq!(root(CR4_PAE, EFER_LMA), 0x1234_5678_9000);
        assert_eq!(root(CR4_PAE, 0), 0x5678_9aa0);
        assert_eq!(root(0, 0), 0x5678_9000);
    }

    #[test]
    fn paging_off_and_missing_registers_are_errors_that_say_so() {
        let error = from_registers(&registers(0x11, CR4_PAE, None)).unwrap_err().to_string();
        assert!(error.contains("paging off (CR0 0x11)"), "{error}");
        let error = from_registers(&X86Registers::default()).unwrap_err().to_string();
        assert!(error.contains("CR0"), "{error}");
        let contradiction = from_registers(&registers(CR0_PG, 0, Some(EFER_LMA))).unwrap_err().to_string();
        assert!(contradiction.contains("without CR4.PAE"), "{contradiction}");
    }

    #[test]
    fn without_efer_a_wide_register_tells_64_bit_mode() {
        let mut narrow = registers(CR0_PG, CR4_PAE, None);
        narrow.cr3 = Some(0x1000);
        let error = from_registers(&narrow).unwrap_err().to_string();
        assert!(error.contains("EFER not recorded"), "{error}");
        narrow.rip = Some(0xffff_ffff_8100_0000);
        assert_eq!(from_registers(&narrow).unwrap().architecture(), &X64);
    }
}
