//! Files: their paths, inode numbers and devices.
//!
//! Owns: the walk from a directory entry over mounts up to a root, as the kernel prints paths.
//! Must not know: who has a file open or mapped.
//! Keeps: a path has a limit of components, so entries that point in a circle end in an error; each entry and mount is read once.
//! Source: fs/d_path.c, include/linux/dcache.h, fs/mount.h, include/linux/fs.h.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::{HashMap, hash_map::Entry};

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    error::{Error, Result},
};

use crate::{
    record::{Record, Span, read_each, text},
    symbols::Symbols,
    types::{Field, Types},
};

/// Components and mounts of one path. The kernel prints paths into 4096 bytes, which hold half as many components.
const MAX_STEPS: u64 = 4096;
/// Longest name of an entry that is taken; file systems allow 255 bytes.
const MAX_NAME: u64 = 4096;

/// Bytes of one path.
const MAX_PATH: usize = 64 << 10;

/// Bits of `file.f_mode` that have meant "the file behind a file of a stacked file system" (`FMODE_BACKING`): bit 25 from Linux 6.5,
/// bit 24 from 6.12. They are macros, which the type information does not hold.
const FMODE_BACKING: u64 = 1 << 25 | 1 << 24;

/// Where the fields lie that lead from a file to its path.
#[derive(Clone, Debug)]
pub(crate) struct VfsLayout {
    file: Span,
    file_mnt: Field,
    file_dentry: Field,
    file_inode: Field,
    file_mode: Field,
    user_path: Option<UserPath>,
    inode: Span,
    inode_number: Field,
    inode_sb: Field,
    sb: Span,
    sb_dev: Field,
    dentry: Span,
    parent: Field,
    name: Field,
    name_len: Field,
    hashed: Field,
    dentry_inode: Field,
    dentry_sb: Field,
    operations: Field,
    operation: Span,
    dynamic_name: Field,
    vfsmount: Span,
    mnt_sb: Field,
    mount: Span,
    mount_mnt: u64,
    mount_root: Field,
    mount_parent: Field,
    mount_point: Field,
    fs: Span,
    fs_mnt: Field,
    fs_dentry: Field,
}

/// Linux 6.8 (def3ae83da02) keeps the path that a stacked file system showed beside the file that lies behind it.
#[derive(Clone, Debug)]
struct UserPath {
    span: Span,
    mnt: Field,
    dentry: Field,
}

impl VfsLayout {
    /// The layout of this kernel.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the structure and the field that the kernel's type information does not have.
    pub(crate) fn new(types: &Types) -> Result<Self> {
        let dentry = |path| types.field("dentry", path);
        let [file_mnt, file_dentry, file_inode, file_mode] =
            ["f_path.mnt", "f_path.dentry", "f_inode", "f_mode"].map(|path| types.field("file", path));
        let (file_mnt, file_dentry, file_inode, file_mode) = (file_mnt?, file_dentry?, file_inode?, file_mode?);
        let (inode_number, inode_sb) = (types.field("inode", "i_ino")?, types.field("inode", "i_sb")?);
        let sb_dev = types.field("super_block", "s_dev")?;
        let (parent, name, name_len) = (dentry("d_parent")?, dentry("d_name.name")?, dentry("d_name.len")?);
        let (hashed, operations) = (dentry("d_hash.pprev")?, dentry("d_op")?);
        let (dentry_inode, dentry_sb) = (dentry("d_inode")?, dentry("d_sb")?);
        // Short names lie in the entry itself; Linux 6.13 (58cf9c383c5c) renamed the place. It only saves a read.
        let inline = types.find_field("dentry", "d_shortname").or_else(|| types.find_field("dentry", "d_iname"));
        let dynamic_name = types.field("dentry_operations", "d_dname")?;
        let mount = |path| types.field("mount", path);
        let (mount_mnt, mount_root) = (mount("mnt")?, mount("mnt.mnt_root")?);
        let (mount_parent, mount_point) = (mount("mnt_parent")?, mount("mnt_mountpoint")?);
        let mnt_sb = types.field("vfsmount", "mnt_sb")?;
        let (fs_mnt, fs_dentry) = (types.field("fs_struct", "root.mnt")?, types.field("fs_struct", "root.dentry")?);
        let user_path = types
            .find_field("backing_file", "user_path.mnt")
            .zip(types.find_field("backing_file", "user_path.dentry"))
            .map(|(mnt, dentry)| {
                Ok::<_, Error>(UserPath { span: Span::of("backing_file", [mnt, dentry])?, mnt, dentry })
            })
            .transpose()?;
        let read = [parent, name, name_len, hashed, operations, dentry_inode, dentry_sb];
        Ok(Self {
            file: Span::of("file", [file_mnt, file_dentry, file_inode, file_mode])?,
            file_mnt,
            file_dentry,
            file_inode,
            file_mode,
            user_path,
            inode: Span::of("inode", [inode_number, inode_sb])?,
            inode_number,
            inode_sb,
            sb: Span::of("super_block", [sb_dev])?,
            sb_dev,
            dentry: Span::of("dentry", read.into_iter().chain(inline))?,
            parent,
            name,
            name_len,
            hashed,
            dentry_inode,
            dentry_sb,
            operations,
            operation: Span::of("dentry_operations", [dynamic_name])?,
            dynamic_name,
            vfsmount: Span::of("vfsmount", [mnt_sb])?,
            mnt_sb,
            mount: Span::of("mount", [mount_root, mount_parent, mount_point])?,
            mount_mnt: mount_mnt.offset,
            mount_root,
            mount_parent,
            mount_point,
            fs: Span::of("fs_struct", [fs_mnt, fs_dentry])?,
            fs_mnt,
            fs_dentry,
        })
    }
}

/// The kernel's functions that make up the name of an entry that is in no directory, by how it looks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DynamicNames {
    /// "/NAME (deleted)": shared memory, memfd, huge pages.
    simple: Option<VirtAddr>,
    /// "anon_inode:NAME".
    anonymous: Option<VirtAddr>,
    /// "pipe:[INODE]".
    pipe: Option<VirtAddr>,
    /// "socket:[INODE]".
    socket: Option<VirtAddr>,
}

impl DynamicNames {
    pub(crate) fn new(symbols: &Symbols) -> Self {
        Self {
            simple: symbols.address_of("simple_dname"),
            anonymous: symbols.address_of("anon_inodefs_dname"),
            pipe: symbols.address_of("pipefs_dname"),
            socket: symbols.address_of("sockfs_dname"),
        }
    }
}

/// A place in the tree of files: an entry, seen through a mount (`struct path`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    /// The `vfsmount`.
    mnt: VirtAddr,
    dentry: VirtAddr,
}

/// What /proc shows of a file.
#[derive(Clone, Debug)]
pub(crate) struct OpenFile {
    pub(crate) place: Place,
    pub(crate) inode: u64,
    pub(crate) device: u32,
}

#[derive(Clone, Debug)]
struct Dentry {
    parent: VirtAddr,
    name: String,
    unhashed: bool,
    operations: VirtAddr,
    inode: VirtAddr,
}

#[derive(Clone, Copy, Debug)]
struct Mount {
    root: VirtAddr,
    parent: VirtAddr,
    point: VirtAddr,
}

/// Reads files and walks paths; keeps what it has read, so many paths of one listing share it.
pub(crate) struct Vfs<'a> {
    view: &'a dyn MemoryView,
    layout: &'a VfsLayout,
    names: DynamicNames,
    dentries: HashMap<VirtAddr, Dentry>,
    mounts: HashMap<VirtAddr, Mount>,
    operations: HashMap<VirtAddr, VirtAddr>,
}

impl<'a> Vfs<'a> {
    pub(crate) fn new(view: &'a dyn MemoryView, layout: &'a VfsLayout, names: DynamicNames) -> Self {
        Self { view, layout, names, dentries: HashMap::new(), mounts: HashMap::new(), operations: HashMap::new() }
    }

    /// The root directory of a process, from its `fs_struct`.
    pub(crate) fn root_of(&self, fs: VirtAddr) -> Result<Place> {
        let record = Record::read(self.view, fs, self.layout.fs)?;
        Ok(Place { mnt: record.pointer(self.layout.fs_mnt)?, dentry: record.pointer(self.layout.fs_dentry)? })
    }

    /// The place of the file at `file` (`struct file`), without its inode.
    pub(crate) fn place(&self, file: VirtAddr) -> Result<Place> {
        self.place_in(&Record::read(self.view, file, self.layout.file)?)
    }

    fn place_in(&self, file: &Record) -> Result<Place> {
        Ok(Place { mnt: file.pointer(self.layout.file_mnt)?, dentry: file.pointer(self.layout.file_dentry)? })
    }

    /// Reads the files at `files`, three batches for all of them; one answer for each, in their order.
    pub(crate) fn open_files(&mut self, files: &[VirtAddr]) -> Vec<Result<OpenFile>> {
        let layout = self.layout;
        let files = read_each(self.view, files.iter().map(|file| (*file, layout.file)));
        let places: Vec<Result<(Place, VirtAddr)>> = files.into_iter().map(|file| self.shown(&file?)).collect();
        let inodes = read_each(self.view, places.iter().flatten().map(|(_, inode)| (*inode, layout.inode)));
        let blocks = inodes.iter().map(|inode| inode.as_ref().ok()?.pointer(layout.inode_sb).ok());
        let blocks = read_each(self.view, blocks.map(|sb| (sb.unwrap_or_default(), layout.sb)));
        let mut inodes = inodes.into_iter().zip(blocks);
        places
            .into_iter()
            .map(|place| {
                let (place, at) = place?;
                let missing = || Error::NotFound { what: "inode", name: at.to_string() };
                let (inode, sb) = inodes.next().ok_or_else(missing)?;
                let inode = inode?.number(layout.inode_number)?;
                Ok(OpenFile { place, inode, device: sb?.u32(layout.sb_dev)? })
            })
            .collect()
    }

    /// The place and the inode that /proc shows for a mapped file: for the file behind a file of a stacked file system
    /// (overlayfs), those of the latter.
    fn shown(&mut self, file: &Record) -> Result<(Place, VirtAddr)> {
        let own = (self.place_in(file)?, file.pointer(self.layout.file_inode)?);
        let Some(user) = &self.layout.user_path else { return Ok(own) };
        if file.number(self.layout.file_mode)? & FMODE_BACKING == 0 {
            return Ok(own);
        }
        // Either bit means something else in other releases, where what follows the file is not a path: a path holds together.
        let Ok(behind) = Record::read(self.view, file.address(), user.span) else { return Ok(own) };
        let place = Place { mnt: behind.pointer(user.mnt)?, dentry: behind.pointer(user.dentry)? };
        let sb = |record: Result<Record>, field| record.and_then(|record| record.pointer(field));
        let mnt_sb = sb(Record::read(self.view, place.mnt, self.layout.vfsmount), self.layout.mnt_sb);
        let dentry_sb = sb(Record::read(self.view, place.dentry, self.layout.dentry), self.layout.dentry_sb);
        match (mnt_sb, dentry_sb) {
            (Ok(a), Ok(b)) if a == b && !a.is_null() => Ok((place, self.dentry(place.dentry)?.inode)),
            _ => Ok(own),
        }
    }

    /// The path of `place` as a process with this root directory sees it, with the mark that the kernel adds to deleted files.
    pub(crate) fn path(&mut self, place: Place, root: Option<Place>) -> Result<String> {
        let first = self.dentry(place.dentry)?;
        let top = first.parent == place.dentry;
        if !first.operations.is_null() {
            let function = self.dynamic_name(first.operations)?;
            if !function.is_null() && (!top || self.mount(place.mnt)?.root != place.dentry) {
                return self.made_up_name(function, place.dentry, &first);
            }
        }
        let deleted = if first.unhashed && !top { " (deleted)" } else { "" };
        let mut names: Vec<String> = Vec::new();
        let mut at = place;
        let mut steps = 0;
        let mut len: usize = 0;
        while Some(at) != root {
            if steps >= MAX_STEPS {
                return Err(Error::Limit { what: "path", address: place.dentry.into(), limit: MAX_STEPS });
            }
            steps = steps.saturating_add(1);
            let mount = self.mount(at.mnt)?;
            if at.dentry == mount.root {
                let parent = mount.parent.wrapping_add(self.layout.mount_mnt);
                if parent == at.mnt {
                    break;
                }
                at = Place { mnt: parent, dentry: mount.point };
                continue;
            }
            let dentry = self.dentry(at.dentry)?;
            if dentry.parent == at.dentry {
                // Not below the root of its mount: the kernel prints such a place as the root.
                names.clear();
                break;
            }
            len = len.saturating_add(dentry.name.len()).saturating_add(1);
            if len > MAX_PATH {
                let limit = u64::try_from(MAX_PATH).unwrap_or(u64::MAX);
                return Err(Error::Limit { what: "path", address: place.dentry.into(), limit });
            }
            names.push(dentry.name);
            at.dentry = dentry.parent;
        }
        let mut path = String::new();
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        if path.is_empty() {
            path.push('/');
        }
        path.push_str(deleted);
        Ok(path)
    }

    fn made_up_name(&self, function: VirtAddr, at: VirtAddr, dentry: &Dentry) -> Result<String> {
        let inode = || Record::read(self.view, dentry.inode, self.layout.inode)?.number(self.layout.inode_number);
        let is = |known| Some(function) == known;
        if is(self.names.simple) {
            Ok(format!("/{} (deleted)", dentry.name))
        } else if is(self.names.anonymous) {
            Ok(format!("anon_inode:{}", dentry.name))
        } else if is(self.names.pipe) {
            Ok(format!("pipe:[{}]", inode()?))
        } else if is(self.names.socket) {
            Ok(format!("socket:[{}]", inode()?))
        } else {
            Err(Error::Unsupported {
                what: format!("the name of the directory entry at {at}"),
                why: format!(
                    "the kernel's function at {} makes it up; the entry itself is called \"{}\"",
                    function, dentry.name
                ),
            })
        }
    }

    fn dynamic_name(&mut self, operations: VirtAddr) -> Result<VirtAddr> {
        match self.operations.entry(operations) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                let record = Record::read(self.view, operations, self.layout.operation)?;
                Ok(*new.insert(record.pointer(self.layout.dynamic_name)?))
            }
        }
    }

    fn mount(&mut self, vfsmount: VirtAddr) -> Result<Mount> {
        match self.mounts.entry(vfsmount) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                let record = Record::read(self.view, vfsmount.wrapping_sub(self.layout.mount_mnt), self.layout.mount)?;
                Ok(*new.insert(Mount {
                    root: record.pointer(self.layout.mount_root)?,
                    parent: record.pointer(self.layout.mount_parent)?,
                    point: record.pointer(self.layout.mount_point)?,
                }))
            }
        }
    }

    fn dentry(&mut self, address: VirtAddr) -> Result<Dentry> {
        if let Some(known) = self.dentries.get(&address) {
            return Ok(known.clone());
        }
        let layout = self.layout;
        let record = Record::read(self.view, address, layout.dentry)?;
        let (at, len) = (record.pointer(layout.name)?, record.number(layout.name_len)?);
        if len > MAX_NAME {
            return Err(Error::Corrupt {
                what: "dentry",
                address: address.into(),
                expected: format!("a name of at most {MAX_NAME} bytes").into(),
                found: format!("{len} bytes").into(),
            });
        }
        let name = match record.bytes_at(at, len) {
            Some(bytes) => text(bytes),
            None => text(&self.view.read_bytes(at, len)?),
        };
        let dentry = Dentry {
            parent: record.pointer(layout.parent)?,
            name,
            unhashed: record.pointer(layout.hashed)?.is_null(),
            operations: record.pointer(layout.operations)?,
            inode: record.pointer(layout.dentry_inode)?,
        };
        self.dentries.insert(address, dentry.clone());
        Ok(dentry)
    }
}

#[cfg(test)]
pub(crate) mod tests;
