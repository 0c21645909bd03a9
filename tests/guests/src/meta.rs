//! What is known about a captured guest from outside.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Result, WithPath, unexpected};
use crate::monitor::RamRun;

/// `meta.json` of a captured guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The guest's name.
    pub name: String,
    /// Instruction set, as Debian names it.
    pub arch: String,
    /// Packages it was made of, `name_version_arch`.
    pub packages: Vec<String>,
    /// Kernel release.
    pub release: String,
    /// Kernel command line.
    pub cmdline: String,
    /// Levels of the page tables.
    pub levels: u8,
    /// Page-table isolation.
    pub pti: bool,
    /// QEMU's machine.
    pub machine: String,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// Number of vCPUs.
    pub cpus: u32,
    /// CR3 of each vCPU.
    pub cr3: Vec<u64>,
    /// The CR3 that `tlb.txt` and `gva2gpa.txt` were made with: vCPU 0's.
    pub monitor_cr3: u64,
    /// Where the direct map starts, read from the kernel's own variable (a constant on i386).
    pub page_offset: u64,
    /// Runs of RAM and where they lie in `ram.img`.
    pub ram: Vec<RamRun>,
    /// QEMU's version.
    pub qemu: String,
}

impl Meta {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).at(path)?;
        serde_json::from_str(&text)
            .map_err(|error| unexpected(path.display().to_string(), "a guest's meta.json", &error.to_string()))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| unexpected("meta.json", "serializable values", &error.to_string()))?;
        std::fs::write(path, text + "\n").at(path)
    }
}
