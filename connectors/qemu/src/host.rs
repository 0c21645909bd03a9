//! A process of this host, as /proc shows it.
//!
//! Owns: the folder of one process, held open; whether it still lives; its mappings and files. Must not know: QEMU.
//! Keeps: everything is asked through the open folder, which stays that of the one process: of another one that gets the same pid
//! later nothing is ever read. Sizes of what is read are limited.
//! Source: proc(5), pidfd_open(2), poll(2).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use memflow_core::{Error, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, openat},
    process::{Gid, Pid, PidfdFlags, Uid, pidfd_open},
};

/// Longest file of /proc that is read: a process has at most 65,530 mappings unless the limit was raised.
const MAX_FILE: u64 = 64 << 20;

/// A process.
#[derive(Debug)]
pub(crate) struct HostProcess {
    pid: u32,
    folder: OwnedFd,
    /// Says when the process ends; older kernels have none.
    end: Option<OwnedFd>,
}

/// One mapping of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Can be read.
    pub read: bool,
    /// Can be written to.
    pub write: bool,
    /// Others see what is written.
    pub shared: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device and inode of the file; zero for none.
    pub file: (u64, u64),
    /// The file, or the kernel's name for it; empty for anonymous memory.
    pub path: String,
}

impl Mapping {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Never: a mapping has at least a page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file's path without what the kernel appends when it was deleted.
    pub fn file_path(&self) -> &Path {
        Path::new(self.path.strip_suffix(" (deleted)").unwrap_or(&self.path))
    }

    /// Whether `next` continues this one in memory and in the same file. Anonymous memory that the kernel keeps apart is apart: beside a
    /// guest's RAM there may lie other memory of the process.
    fn continues(&self, next: &Self) -> bool {
        self.file != (0, 0)
            && self.offset.checked_add(self.len()) == Some(next.offset)
            && (self.end, self.read, self.write, self.shared, self.file, &self.path)
                == (next.start, next.read, next.write, next.shared, next.file, &next.path)
    }
}

/// Reads the text of `/proc/PID/maps`; mappings of a file that the kernel split are joined. Lines that are no mapping are left out.
pub fn parse_maps(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for mapping in text.lines().filter_map(parse_mapping) {
        match mappings.last_mut() {
            Some(last) if last.continues(&mapping) => last.end = mapping.end,
            _ => mappings.push(mapping),
        }
    }
    mappings
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let rights = fields.next()?.as_bytes();
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?;
    let path = fields.next().unwrap_or_default().trim_start();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    Some(Mapping {
        start,
        end: Some(end).filter(|end| *end > start)?,
        read: rights.first() == Some(&b'r'),
        write: rights.get(1) == Some(&b'w'),
        shared: rights.get(3) == Some(&b's'),
        offset: hex(offset)?,
        file: (
            rustix::fs::makedev(u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?),
            inode.parse().ok()?,
        ),
        path: path.to_owned(),
    })
}

impl HostProcess {
    /// The process that has this pid now.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())?;
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let end = number.and_then(|number| pidfd_open(number, PidfdFlags::empty()).ok());
        let this = Self { pid, folder, end };
        // The pid may have changed hands between the two calls; then the folder's process is gone.
        this.start_time()?;
        Ok(this)
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// False as soon as the process has ended; its pid is then free for another one.
    pub(crate) fn is_alive(&self) -> bool {
        let Some(end) = &self.end else { return self.start_time().is_ok() };
        let mut polled = [PollFd::new(end, PollFlags::IN)];
        loop {
            match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) => return true,
                _ => return false,
            }
        }
    }

    /// When it started, in clock ticks since the host did.
    pub(crate) fn start_time(&self) -> io::Result<u64> {
        let text = self.text("stat")?;
        // The name stands in parentheses and may hold anything.
        let fields = text.rsplit_once(')').map(|(_, fields)| fields);
        let mut fields = fields.unwrap_or_default().split_ascii_whitespace();
        match (fields.next(), fields.nth(18).and_then(|field| field.parse().ok())) {
            (Some("Z" | "X"), _) => Err(io::Error::from(rustix::io::Errno::SRCH)),
            (_, Some(time)) => Ok(time),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Opens one of its files.
    pub(crate) fn file(&self, name: &str, write: bool) -> io::Result<File> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        Ok(File::from(openat(&self.folder, name, access | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// One of its files, whole.
    pub(crate) fn bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(name, false)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&self, name: &str) -> io::Result<String> {
        self.bytes(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The words of its command line, the program's name first.
    pub(crate) fn arguments(&self) -> io::Result<Vec<String>> {
        let text = self.text("cmdline")?;
        Ok(text.strip_suffix('\0').unwrap_or(&text).split('\0').map(str::to_owned).collect())
    }

    /// The user and the group that it makes files as.
    pub(crate) fn owner(&self) -> io::Result<(Uid, Gid)> {
        let text = self.text("status")?;
        // Uid: real, effective, saved, for files.
        let fourth = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().nth(3)?.parse().ok()
        };
        match (fourth("Uid:"), fourth("Gid:")) {
            (Some(user), Some(group)) => Ok((Uid::from_raw(user), Gid::from_raw(group))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The kernel's short name for it.
    pub(crate) fn name(&self) -> io::Result<String> {
        self.text("comm").map(|name| name.trim_end().to_owned())
    }

    /// The program it runs, where this may be known.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        let path = rustix::fs::readlinkat(&self.folder, "exe", Vec::new()).ok()?;
        let text = path.to_string_lossy().into_owned();
        Some(PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text)))
    }

    /// The inode of the socket that one of its descriptors is.
    pub(crate) fn socket_inode(&self, descriptor: u32) -> Option<u64> {
        let link = rustix::fs::readlinkat(&self.folder, format!("fd/{descriptor}"), Vec::new()).ok()?;
        link.to_str().ok()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }

    /// Its mappings.
    ///
    /// # Errors
    /// They may not be seen, or the process is gone.
    pub(crate) fn mappings(&self) -> Result<Vec<Mapping>> {
        let text = self.text("maps").map_err(|error| self.refused("mappings", error))?;
        if text.is_empty() {
            return Err(self.refused("mappings", rustix::io::Errno::SRCH.into()));
        }
        Ok(parse_maps(&text))
    }

    /// The file behind a mapping, found by its path, among the open files of the process, or by the mapping itself.
    ///
    /// # Errors
    /// It cannot be opened in any way.
    pub(crate) fn mapped_file(&self, mapping: &Mapping, write: bool) -> Result<File> {
        let is_it = |file: &File| {
            // Device and inode name a file as long as it is mapped.
            rustix::fs::fstat(file).is_ok_and(|found| (found.st_dev, found.st_ino) == mapping.file)
        };
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let mut tried = |opened: io::Result<File>| match opened {
            Ok(file) if is_it(&file) => Some(file),
            Ok(_) => None,
            Err(error) => {
                last = error;
                None
            }
        };
        let range = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        if let Some(file) = tried(self.file(&range, write)) {
            return Ok(file);
        }
        for descriptor in self.descriptors() {
            // Only what is this file is opened for writing: opening a device or a pipe can do things.
            let name = format!("fd/{descriptor}");
            let matches = rustix::fs::statat(&self.folder, &name, rustix::fs::AtFlags::empty())
                .is_ok_and(|found| (found.st_dev, found.st_ino) == mapping.file);
            if matches && let Some(file) = tried(self.file(&name, write)) {
                return Ok(file);
            }
        }
        let path = mapping.file_path();
        let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        if regular && let Some(file) = tried(File::options().read(true).write(write).open(path)) {
            return Ok(file);
        }
        Err(self.refused(&format!("file {}", mapping.path), last))
    }

    fn descriptors(&self) -> Vec<u32> {
        let Ok(folder) =
            openat(&self.folder, "fd", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        else {
            return Vec::new();
        };
        let Ok(entries) = rustix::fs::Dir::read_from(&folder) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
    }

    /// A path of the process' own file system, as this one reaches it: through the process where that is allowed.
    pub(crate) fn own_path(&self, path: &Path) -> PathBuf {
        let folder = PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()));
        match path.strip_prefix("/") {
            Ok(inside) => {
                let through = folder.join("root").join(inside);
                if std::fs::symlink_metadata(&through).is_ok() { through } else { path.to_owned() }
            }
            Err(_) => folder.join("cwd").join(path),
        }
    }

    /// An error of this process, with the way out where a permission is missing.
    pub(crate) fn refused(&self, what: &str, error: io::Error) -> Error {
        let what = format!("{what} of process {}", self.pid);
        match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
                Error::Unsupported { what: format!("reading the {what} without permission"), why: permission_help() }
            }
            Some(rustix::io::Errno::SRCH | rustix::io::Errno::NOENT) if !self.is_alive() => {
                Error::io(format!("{what}, which has ended"), error)
            }
            _ => Error::io(what, error),
        }
    }
}

/// What has to be changed before another process' memory can be used.
pub(crate) fn permission_help() -> String {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let yama = match scope.trim() {
        "" | "0" => String::new(),
        scope => format!("; kernel.yama.ptrace_scope is {scope} and must be 0 for the same user to suffice"),
    };
    format!(
        "memflow has to run as root or with the capability CAP_SYS_PTRACE (`setcap cap_sys_ptrace+ep`), or as the user that runs QEMU \
         with kernel.yama.ptrace_scope=0{yama}"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn mappings_of_files_that_the_kernel_split_are_joined() {
        let text = "7f0000000000-7f0000200000 rw-s 00000000 00:01 7    /memfd:ram (deleted)\n\
                    7f0000200000-7f0000400000 rw-s 00200000 00:01 7    /memfd:ram (deleted)\n\
                    7f0000400000-7f0000500000 rw-s 00000000 00:01 7    /memfd:ram (deleted)\n\
                    7f0000500000-7f0000600000 rw-p 00000000 00:00 0 \n\
                    7f0000600000-7f0000700000 rw-p 00000000 00:00 0 \n\
                    7f0000700000-7f0000701000 ---p 00000000 00:00 0 \n\
                    garbage\n7f-6f rw-p 0 0:0 0\n";
        let maps = parse_maps(text);
        assert_eq!(maps.iter().map(Mapping::len).collect::<Vec<_>>(), [4 << 20, 1 << 20, 1 << 20, 1 << 20, 4096]);
        assert!(maps[0].shared && maps[0].write && maps[0].file_path() == Path::new("/memfd:ram"));
        assert!(!maps[4].read);
    }

    #[test]
    fn this_process_lives_and_has_mappings() {
        let this = HostProcess::open(std::process::id()).unwrap();
        assert!(this.is_alive() && this.start_time().unwrap() > 0);
        assert!(this.mappings().unwrap().len() > 3);
        assert_eq!(this.program().unwrap(), std::env::current_exe().unwrap());
        assert!(HostProcess::open(u32::MAX).is_err());
    }

    #[test]
    fn process_that_ended_is_not_mistaken_for_a_later_one() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = HostProcess::open(child.id()).unwrap();
        assert!(process.is_alive());
        child.kill().unwrap();
        while process.is_alive() {}
        assert!(process.mappings().is_err());
        child.wait().unwrap();
        assert!(!process.is_alive() && process.start_time().is_err());
        let old = HostProcess { end: None, ..process };
        assert!(!old.is_alive(), "kernels without pidfds");
    }
}
