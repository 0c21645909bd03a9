//! The block that tells debuggers where the kernel's variables are.
//!
//! Owns: KDDEBUGGER_DATA64, and how it is encoded. Must not know: where anything lies but what it is told.
//! Keeps: the encoded block gives the plain one when it is decoded with the three values that lie in the kernel.
//! Source: `wdbgexts.h` of the Windows SDK for the fields; public descriptions of `KdDecodeDataBlock` for the encoding.

use crate::{
    Error,
    description::KdbgForm,
    kernel::KernelImage,
    machine::{KERNEL, Machine},
    truth::Kdbg,
};

/// Offsets in the block of variables whose address it holds.
const VARIABLES: &[(u64, &str)] = &[
    (0x48, "PsLoadedModuleList"),
    (0x50, "PsActiveProcessHead"),
    (0x58, "PspCidTable"),
    (0xc0, "MmPfnDatabase"),
    (0x1c8, "MmHighestUserAddress"),
    (0x1d0, "MmSystemRangeStart"),
    (0x1d8, "MmUserProbeAddress"),
    (0x208, "NtBuildLab"),
    (0x270, "MmPhysicalMemoryBlock"),
];
/// Offsets in the block of offsets in structures, in 16 bits.
const OFFSETS: &[(u64, &str)] = &[
    (0x29a, "_KTHREAD.Teb"),
    (0x29c, "_KTHREAD.KernelStack"),
    (0x29e, "_KTHREAD.InitialStack"),
    (0x2a2, "_KTHREAD.State"),
    (0x2a8, "sizeof(_EPROCESS)"),
    (0x2aa, "_EPROCESS.Peb"),
    (0x2ac, "_EPROCESS.InheritedFromUniqueProcessId"),
    (0x2ae, "_KPROCESS.DirectoryTableBase"),
    (0x2b4, "_KPRCB.CurrentThread"),
    (0x2c0, "sizeof(_ETHREAD)"),
    (0x2e2, "_KPCR.Self"),
    (0x2e4, "_KPCR.CurrentPrcb"),
    (0x2e6, "_KPCR.Prcb"),
];

/// One word, as it is stored.
fn encode(word: u64, never: u64, always: u64, flag: u64) -> u64 {
    ((word ^ always).swap_bytes() ^ flag).rotate_right((never & 0xff) as u32) ^ never
}

impl Machine {
    /// Writes the block.
    pub(crate) fn kdbg(&mut self, kernel: &KernelImage, form: KdbgForm, pae: bool) -> Result<Option<Kdbg>, Error> {
        if form == KdbgForm::Absent {
            return Ok(None);
        }
        let address = kernel.symbol("KdDebuggerDataBlock")?;
        let size: u64 = match (self.offsets.version.major, self.offsets.version.minor) {
            (10.., _) => 0x380,
            (_, 2..) => 0x360,
            _ => 0x340,
        };
        let mut block = vec![0; size as usize];
        let mut put = |at: u64, bytes: &[u8]| block[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        let head = kernel.symbol("KdpDebuggerDataListHead")?;
        put(0, &head.to_le_bytes());
        put(8, &head.to_le_bytes());
        put(0x10, b"KDBG");
        put(0x14, &(size as u32).to_le_bytes());
        put(0x18, &kernel.base.to_le_bytes());
        put(0x36, &u16::from(pae).to_le_bytes());
        put(0x138, &0x1000_u64.to_le_bytes());
        for (at, name) in VARIABLES {
            if let Some(symbol) = kernel.symbols.get(*name) {
                put(*at, &symbol.to_le_bytes());
            }
        }
        for (at, name) in OFFSETS {
            if let Some(offset) = self.offsets.get(name) {
                put(*at, &(offset as u16).to_le_bytes());
            }
        }
        if let Some(attached) = self.offsets.get("_KTHREAD.ApcState") {
            put(0x2a0, &((attached + 4 * self.pointer()) as u16).to_le_bytes());
        }
        let encoded = form == KdbgForm::Encoded;
        if encoded {
            let (never, always) = (self.rng.u64(..), self.rng.u64(..));
            let flag = kernel.symbol("KdpDataBlockEncoded")?;
            self.put(KERNEL, kernel.symbol("KiWaitNever")?, 8, never)?;
            self.put(KERNEL, kernel.symbol("KiWaitAlways")?, 8, always)?;
            self.put(KERNEL, flag, 1, 1)?;
            for word in block.chunks_exact_mut(8) {
                let plain = word.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
                word.copy_from_slice(&encode(plain, never, always, flag).to_le_bytes());
            }
        }
        self.put_pointer(head, address)?;
        self.put_pointer(head + self.pointer(), address)?;
        self.write(KERNEL, address, &block)?;
        Ok(Some(Kdbg { address, size, encoded }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_decode_as_debuggers_do_it() {
        let (never, always, flag) = (0x1234_5678_9abc_def7, 0x0fed_cba9_8765_4321, 0xffff_f800_1234_5678);
        let stored = encode(0xffff_f803_dead_beef, never, always, flag);
        let decoded = ((stored ^ never).rotate_left((never & 0xff) as u32) ^ flag).swap_bytes() ^ always;
        assert_eq!(decoded, 0xffff_f803_dead_beef);
    }
}
