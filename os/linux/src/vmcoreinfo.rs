//! The VMCOREINFO note: what a Linux kernel writes down about itself for crash tools.
//!
//! Owns: the text's grammar. Must not know: where the text was found, whether it is true.
//! Keeps: a key that is absent or malformed is `None`; nothing is guessed.
//! Source: Linux `Documentation/admin-guide/kdump/vmcoreinfo.rst`, `kernel/vmcore_info.c`, `arch/x86/kernel/vmcore_info_64.c`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::HashMap;

use memflow_core::VirtAddr;

/// The first key of the text, in every version.
pub(crate) const FIRST_KEY: &[u8] = b"OSRELEASE=";
/// The text fills less than a page; the kernel reserves one (`VMCOREINFO_BYTES`, two pages at most in any configuration).
pub(crate) const MAX_LEN: usize = 8192;

/// A parsed VMCOREINFO text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VmcoreInfo {
    values: HashMap<String, String>,
}

impl VmcoreInfo {
    /// Reads `KEY=value` lines up to the first byte that cannot belong to the text. Lines without `=` are skipped.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let end = text
            .iter()
            .position(|byte| !matches!(byte, b'\n' | b'\t' | b' '..=b'~'))
            .unwrap_or(text.len())
            .min(MAX_LEN);
        let text = text.get(..end).unwrap_or_default();
        let values = text
            .split(|byte| *byte == b'\n')
            .filter_map(|line| std::str::from_utf8(line).ok()?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_end().to_owned()))
            .collect();
        Self { values }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// `OSRELEASE`: the kernel's release, as `uname -r` prints it.
    pub(crate) fn release(&self) -> Option<&str> {
        self.text("OSRELEASE").filter(|release| !release.is_empty())
    }

    /// `BUILD-ID`, in hexadecimal.
    pub(crate) fn build_id(&self) -> Option<&str> {
        self.text("BUILD-ID").filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// As [`build_id`](Self::build_id), in bytes.
    pub(crate) fn build_id_bytes(&self) -> Option<Vec<u8>> {
        let digits = self.build_id()?.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        pairs.iter().map(|pair| byte(pair)).collect()
    }

    /// `SYMBOL(name)`: the address of a kernel symbol, as it runs.
    pub(crate) fn symbol(&self, name: &str) -> Option<VirtAddr> {
        let text = self.text(&format!("SYMBOL({name})"))?;
        u64::from_str_radix(text, 16).ok().map(VirtAddr::new)
    }

    /// All `SYMBOL(name)` that are addresses.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = (&str, VirtAddr)> + '_ {
        self.values.keys().filter_map(|key| {
            let name = key.strip_prefix("SYMBOL(")?.strip_suffix(')')?;
            Some((name, self.symbol(name)?))
        })
    }

    /// `NUMBER(name)`: a number; they are printed as signed.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        let text = self.text(&format!("NUMBER({name})"))?;
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok().map(u64::cast_signed),
            None => text.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_real_text_are_read() {
        let info = VmcoreInfo::parse(
            b"OSRELEASE=6.1.0-18-amd64\nBUILD-ID=a1b2\nPAGESIZE=4096\nSYMBOL(_stext)=ffffffff9f200000\nNUMBER(phys_base)=-16777216\n\
              NUMBER(pgtable_l5_enabled)=1\nKERNELOFFSET=1e200000\nNUMBER(sme_mask)=0\nSYMBOL(x)=zz\n\0OSRELEASE=stale\n",
        );
        assert_eq!(info.release(), Some("6.1.0-18-amd64"));
        assert_eq!(info.build_id(), Some("a1b2"));
        assert_eq!(info.build_id_bytes(), Some(vec![0xa1, 0xb2]));
        assert_eq!(info.symbol("_stext"), Some(VirtAddr::new(0xffff_ffff_9f20_0000)));
        assert_eq!(info.symbol("x"), None);
        assert_eq!(info.symbol("y"), None);
        assert_eq!(info.symbols().collect::<Vec<_>>(), [("_stext", VirtAddr::new(0xffff_ffff_9f20_0000))]);
        assert_eq!(info.number("phys_base"), Some(-16_777_216));
    }

    #[test]
    fn bytes_that_are_no_text_give_nothing() {
        for bytes in [&b""[..], b"\0\0", b"\xff\xfeOSRELEASE=1\n", b"OSRELEASE", b"OSRELEASE=\n"] {
            assert_eq!(VmcoreInfo::parse(bytes).release(), None);
        }
    }
}
