//! The walk.

use super::{PageFlags, Translation, arch::Architecture};
use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::{Reason, Stop, StopCause},
    memory::{PhysicalMemory, PhysicalMemoryExt},
};

pub(super) fn translate(
    arch: &Architecture,
    root: PhysAddr,
    memory: &dyn PhysicalMemory,
    addr: VirtAddr,
) -> Result<Translation, Reason> {
    let top = arch.levels.len() as u8;
    let stop = |level, table, entry, cause| Reason::NotMapped(Stop { level, table, entry, cause });
    let high = (addr.as_u64() as i64) >> (arch.virtual_bits - 1);
    if high != 0 && !(arch.sign_extended && high == -1) {
        return Err(stop(0, root, 0, StopCause::NotCanonical));
    }
    let mut flags = PageFlags::WRITABLE | PageFlags::USER;
    let mut table = root;
    for (depth, level) in arch.levels.iter().enumerate() {
        let number = top - depth as u8;
        let index = (addr.as_u64() >> level.shift) & ((1 << level.index_bits) - 1);
        let at = table.wrapping_add(index * u64::from(arch.entry_size));
        let mut bytes = [0; 8];
        memory
            .read_into(at, &mut bytes[..arch.entry_size.into()])
            .map_err(|_| stop(number, table, 0, StopCause::TableNotInImage))?;
        let entry = u64::from_le_bytes(bytes);
        if entry & 1 == 0 {
            return Err(stop(number, table, entry, StopCause::NotPresent));
        }
        if entry & 2 == 0 {
            flags.remove(PageFlags::WRITABLE);
        }
        if entry & 4 == 0 {
            flags.remove(PageFlags::USER);
        }
        if entry & arch.no_execute != 0 {
            flags.insert(PageFlags::NO_EXECUTE);
        }
        if level.large_bit.is_some_and(|bit| entry & bit == bit) {
            let page = PageSize::from_shift(level.shift).unwrap_or(PageSize::KIB_4);
            flags.set(PageFlags::ACCESSED, entry & 0x20 != 0);
            flags.set(PageFlags::DIRTY, entry & 0x40 != 0);
            flags.set(PageFlags::GLOBAL, entry & 0x100 != 0);
            let phys = PhysAddr::new((entry & level.page_mask) | addr.page_offset(page));
            return Ok(Translation { phys, page, level: number, flags });
        }
        table = PhysAddr::new(entry & level.table_mask);
    }
    Err(stop(1, table, 0, StopCause::ReservedBit))
}
