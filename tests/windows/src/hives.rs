//! Hives of the registry, as the kernel keeps them in a list.
//!
//! Owns: CMHIVE as far as its list and its names go. Must not know: keys and values, of which there are none.
//! Keeps: members lie where no table says, at distances that are drawn once for a machine, as they differ between builds.
//! Source: `_CMHIVE` and `_HHIVE` in public symbols: the signature first, the link of the list, then the names.

use crate::{
    Error,
    builder::Builder,
    machine::{KERNEL, utf16},
    pool::Pool,
    truth::Hive,
};

/// What a hive begins with.
const SIGNATURE: u64 = 0xbee0_bee0;

impl Builder<'_> {
    /// The hives of the description, and their list.
    pub(crate) fn hives(&mut self) -> Result<Vec<Hive>, Error> {
        let (described, width) = (&self.description.hives, self.machine.pointer());
        if described.is_empty() {
            return Ok(Vec::new());
        }
        let machine = &mut self.machine;
        let link = (0x80 + machine.rng.u64(0..0x20)) * width;
        let names = link + machine.rng.u64(0x20..0x30) * width;
        let mut hives = Vec::new();
        for hive in described {
            let at = machine.pool(Pool::Paged, 0x400 * width, b"CM10")?;
            machine.put(KERNEL, at, 4, SIGNATURE)?;
            for (number, text) in [&hive.file, &hive.root].into_iter().enumerate() {
                let string = at + names + number as u64 * 4 * width;
                if text.is_empty() {
                    continue;
                }
                let buffer = machine.pool(Pool::Paged, utf16(text).len() as u64 + 2, b"CM16")?;
                machine.string(KERNEL, width, string, buffer, text)?;
            }
            hives.push(Hive { address: at, root: hive.root.clone(), file: hive.file.clone() });
        }
        let links: Vec<u64> = hives.iter().map(|hive| hive.address + link).collect();
        let head = self.kernel.symbol("CmpHiveListHead")?;
        self.machine.link(KERNEL, width, head, &links)?;
        Ok(hives)
    }
}
