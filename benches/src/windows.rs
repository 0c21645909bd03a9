//! A Windows of 2 GiB in a file, for the whole command.
//!
//! Owns: which machine it is. Must not know: how a machine is made, what is measured on it.
//! Keeps: the file is sparse, and gone when nobody has it any more.

use std::path::Path;

use memflow_windows_images::{Architecture, Description, OffsetTable, ProcessDescription};
use tempfile::NamedTempFile;

use crate::Result;

/// A machine's memory in a raw file.
#[derive(Debug)]
pub struct WindowsImage(NamedTempFile);

impl WindowsImage {
    /// Its RAM.
    pub const MIB: u64 = 2048;

    /// Makes it: 64 processes of Windows 10. Either all is as it usually is, or nothing but page tables leads to the kernel, of which the
    /// table of builds has never heard.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(known: bool) -> Result<Self> {
        let table = OffsetTable::embedded()?;
        let offsets = table.build("10.0.19041").ok_or("no such build in the table")?.clone();
        let mut description = Description::new(64, Architecture::X64Shadow, offsets);
        description.ram = Self::MIB << 20;
        description.low_stub = known;
        description.guid = (!known).then(|| "00112233445566778899AABBCCDDEEFF".to_owned());
        for number in 0..58 {
            let path = format!(r"C:\Windows\System32\service{number}.exe");
            description.processes.push(ProcessDescription::service(3000 + number * 4, 520, &path));
        }
        let file = tempfile::Builder::new().suffix(".raw").tempfile()?;
        description.build()?.write_raw(file.path())?;
        Ok(Self(file))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
