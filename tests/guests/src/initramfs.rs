//! The guest's first file system: a cpio archive that the kernel unpacks.
//!
//! Owns: what lies where in the guest, and the archive format.
//! Must not know: packages, compilers, QEMU.
//! Keeps: files of one `link` group share an inode, so the guest holds them once.
//! Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst ("newc"); init/initramfs.c for hard links.

use std::io::Write;
use std::path::Path;

use crate::error::{Result, WithPath};

/// A cpio archive under construction.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

impl Archive {
    /// A folder.
    pub(crate) fn folder(&mut self, path: &str) {
        self.inode += 1;
        self.entry(path, self.inode, FOLDER | 0o755, 2, (0, 0), &[]);
    }

    /// A file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.inode += 1;
        self.entry(path, self.inode, REGULAR | mode, 1, (0, 0), bytes);
    }

    /// One executable under several names.
    pub(crate) fn hard_links(&mut self, paths: &[&str], bytes: &[u8]) {
        self.inode += 1;
        let links = u32::try_from(paths.len()).unwrap_or(u32::MAX);
        // The kernel takes the data of the first name and links the others to it.
        for (i, path) in paths.iter().enumerate() {
            let data = if i == 0 { bytes } else { &[] };
            self.entry(path, self.inode, REGULAR | 0o755, links, (0, 0), data);
        }
    }

    /// A symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.inode += 1;
        self.entry(path, self.inode, SYMLINK | 0o777, 1, (0, 0), target.as_bytes());
    }

    /// A character device.
    pub(crate) fn character(&mut self, path: &str, major: u32, minor: u32) {
        self.inode += 1;
        self.entry(path, self.inode, CHARACTER | 0o600, 1, (major, minor), &[]);
    }

    /// Ends the archive and writes it.
    pub(crate) fn write(mut self, to: &Path) -> Result<()> {
        self.entry("TRAILER!!!", 0, 0, 1, (0, 0), &[]);
        let mut file = std::fs::File::create(to).at(to)?;
        file.write_all(&self.bytes).at(to)
    }

    fn entry(&mut self, path: &str, inode: u32, mode: u32, links: u32, device: (u32, u32), data: &[u8]) {
        let size = data.len();
        let name_size = path.len() + 1;
        let (major, minor) = device;
        // magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{size:08x}{0:08x}{0:08x}{major:08x}{minor:08x}{name_size:08x}{0:08x}",
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_110_bytes_and_everything_is_aligned_to_four() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, b"12345");
        // 110 + "a\0" = 112, then 5 bytes padded to 8.
        assert_eq!(archive.bytes.len(), 120);
        assert!(archive.bytes.starts_with(b"07070100000001000081a4"));
    }

    #[test]
    fn hard_links_share_an_inode_and_carry_the_data_once() {
        let mut archive = Archive::default();
        archive.hard_links(&["x", "y"], b"data");
        let text = String::from_utf8(archive.bytes).unwrap();
        assert_eq!(text.matches("data").count(), 1);
        assert_eq!(text.matches("07070100000001").count(), 2);
    }
}
