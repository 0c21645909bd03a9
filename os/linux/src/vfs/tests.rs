#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use super::*;
use crate::testing::{Memory, Of, Structure, types};

const SIMPLE: u64 = 0xf000_0001;
const ANONYMOUS: u64 = 0xf000_0002;
const SOCKET: u64 = 0xf000_0004;

/// The structures that paths are walked through.
pub(crate) const STRUCTURES: &[Structure] = &[
    ("path", 16, &[("mnt", 0, Of::Bytes(8)), ("dentry", 8, Of::Bytes(8))]),
    ("qstr", 16, &[("len", 4, Of::Bytes(4)), ("name", 8, Of::Bytes(8))]),
    ("hlist_bl_node", 16, &[("next", 0, Of::Bytes(8)), ("pprev", 8, Of::Bytes(8))]),
    (
        "file",
        0x80,
        &[("f_mode", 8, Of::Bytes(4)), ("f_path", 0x40, Of::Struct("path")), ("f_inode", 0x50, Of::Bytes(8))],
    ),
    ("backing_file", 0x90, &[("user_path", 0x80, Of::Struct("path"))]),
    ("inode", 0x80, &[("i_sb", 0x28, Of::Bytes(8)), ("i_ino", 0x40, Of::Bytes(8))]),
    ("super_block", 0x80, &[("s_dev", 0x10, Of::Bytes(4))]),
    (
        "dentry",
        0xc0,
        &[
            ("d_hash", 8, Of::Struct("hlist_bl_node")),
            ("d_parent", 0x18, Of::Bytes(8)),
            ("d_name", 0x20, Of::Struct("qstr")),
            ("d_inode", 0x30, Of::Bytes(8)),
            ("d_iname", 0x38, Of::Bytes(40)),
            ("d_op", 0x60, Of::Bytes(8)),
            ("d_sb", 0x68, Of::Bytes(8)),
        ],
    ),
    ("dentry_operations", 0x80, &[("d_dname", 0x48, Of::Bytes(8))]),
    ("vfsmount", 0x20, &[("mnt_root", 0, Of::Bytes(8)), ("mnt_sb", 8, Of::Bytes(8))]),
    (
        "mount",
        0x100,
        &[
            ("mnt_parent", 0x10, Of::Bytes(8)),
            ("mnt_mountpoint", 0x18, Of::Bytes(8)),
            ("mnt", 0x20, Of::Struct("vfsmount")),
        ],
    ),
    ("fs_struct", 0x40, &[("root", 0x18, Of::Struct("path"))]),
];

fn dentry(memory: &mut Memory, at: u64, parent: u64, name: &str) {
    memory.zero(at, 0xc0).put_u64(at + 0x10, 1).put_u64(at + 0x18, parent).put_u32(at + 0x24, name.len() as u32);
    let text = if name.len() < 40 { at + 0x38 } else { at + 0x1_0000 };
    memory
        .put_u64(at + 0x28, text)
        .put(text, name.as_bytes())
        .put_u64(at + 0x30, at + 0x200)
        .put_u64(at + 0x68, 0x5b00);
    memory.zero(at + 0x200, 0x80).put_u64(at + 0x228, 0x5b00).put_u64(at + 0x240, 42);
}

fn mount(memory: &mut Memory, at: u64, parent: u64, point: u64, root: u64) -> u64 {
    memory.zero(at, 0x100).put_u64(at + 0x10, parent).put_u64(at + 0x18, point).put_u64(at + 0x20, root);
    memory.put_u64(at + 0x28, 0x5b00);
    at + 0x20
}

/// A root file system with /usr/bin/tool and another mounted at /run, which holds /run/app.
struct Tree {
    memory: Memory,
    root: Place,
    run: VirtAddr,
}

const ROOT: u64 = 0x10_0000;
const USR: u64 = 0x10_1000;
const BIN: u64 = 0x10_2000;
const TOOL: u64 = 0x10_3000;
const RUN: u64 = 0x10_4000;
const RUN_ROOT: u64 = 0x10_5000;
const APP: u64 = 0x10_6000;

fn tree() -> Tree {
    let mut memory = Memory::default();
    dentry(&mut memory, ROOT, ROOT, "/");
    dentry(&mut memory, USR, ROOT, "usr");
    dentry(&mut memory, BIN, USR, "bin");
    dentry(&mut memory, TOOL, BIN, "tool");
    dentry(&mut memory, RUN, ROOT, "run");
    dentry(&mut memory, RUN_ROOT, RUN_ROOT, "/");
    dentry(&mut memory, APP, RUN_ROOT, "app");
    let root = mount(&mut memory, 0x20_0000, 0x20_0000, ROOT, ROOT);
    let run = mount(&mut memory, 0x20_1000, 0x20_0000, RUN, RUN_ROOT);
    memory.zero(0x5b00, 0x80).put_u32(0x5b10, 8 << 20 | 1);
    Tree { memory, root: place(root, ROOT), run: VirtAddr::new(run) }
}

fn place(mnt: u64, dentry: u64) -> Place {
    Place { mnt: VirtAddr::new(mnt), dentry: VirtAddr::new(dentry) }
}

fn path(tree: &Tree, mnt: VirtAddr, dentry: u64, root: Option<Place>) -> Result<String> {
    let layout = VfsLayout::new(&types(STRUCTURES)).unwrap();
    let names = DynamicNames {
        simple: Some(VirtAddr::new(SIMPLE)),
        anonymous: Some(VirtAddr::new(ANONYMOUS)),
        pipe: None,
        socket: Some(VirtAddr::new(SOCKET)),
    };
    Vfs::new(&tree.memory, &layout, names).path(Place { mnt, dentry: VirtAddr::new(dentry) }, root)
}

fn in_root(tree: &Tree, dentry: u64) -> Result<String> {
    path(tree, tree.root.mnt, dentry, Some(tree.root))
}

#[test]
fn path_goes_up_to_the_root() {
    let tree = tree();
    assert_eq!(in_root(&tree, TOOL).unwrap(), "/usr/bin/tool");
    assert_eq!(in_root(&tree, ROOT).unwrap(), "/");
    assert_eq!(path(&tree, tree.root.mnt, TOOL, None).unwrap(), "/usr/bin/tool");
}

#[test]
fn path_crosses_mounts() {
    let tree = tree();
    assert_eq!(path(&tree, tree.run, APP, Some(tree.root)).unwrap(), "/run/app");
    assert_eq!(path(&tree, tree.run, RUN_ROOT, Some(tree.root)).unwrap(), "/run");
}

#[test]
fn path_is_as_seen_from_the_root_of_the_process() {
    let tree = tree();
    let usr = Place { dentry: VirtAddr::new(USR), ..tree.root };
    assert_eq!(path(&tree, tree.root.mnt, TOOL, Some(usr)).unwrap(), "/bin/tool");
    // Not below that root: the path goes up to the root of all.
    assert_eq!(path(&tree, tree.run, APP, Some(usr)).unwrap(), "/run/app");
}

#[test]
fn deleted_file_is_marked_and_a_root_is_not() {
    let mut tree = tree();
    tree.memory.put_u64(TOOL + 0x10, 0).put_u64(ROOT + 0x10, 0);
    assert_eq!(in_root(&tree, TOOL).unwrap(), "/usr/bin/tool (deleted)");
    assert_eq!(in_root(&tree, ROOT).unwrap(), "/");
}

#[test]
fn long_name_lies_outside_its_entry() {
    let mut tree = tree();
    let name = "n".repeat(255);
    dentry(&mut tree.memory, 0x10_7000, USR, &name);
    assert_eq!(in_root(&tree, 0x10_7000).unwrap(), format!("/usr/{name}"));
}

#[test]
fn names_that_are_made_up() {
    let mut tree = tree();
    for (function, expected) in [
        (SIMPLE, Some("/memfd:x (deleted)")),
        (ANONYMOUS, Some("anon_inode:memfd:x")),
        (SOCKET, Some("socket:[42]")),
        (0xf000_0099, None),
        (0, Some("/memfd:x")),
    ] {
        dentry(&mut tree.memory, 0x10_8000, 0x10_8000, "memfd:x");
        let internal = mount(&mut tree.memory, 0x20_2000, 0x20_2000, 0x10_9000, 0x10_9000);
        tree.memory.put_u64(0x10_8060, 0x3000).zero(0x3000, 0x80).put_u64(0x3048, function);
        let found = path(&tree, VirtAddr::new(internal), 0x10_8000, Some(tree.root));
        match expected {
            // Without a function such an entry is not below its mount, and the kernel prints the root.
            Some("/memfd:x") => assert_eq!(found.unwrap(), "/"),
            Some(expected) => assert_eq!(found.unwrap(), expected),
            None => assert!(found.unwrap_err().to_string().contains("memfd:x")),
        }
    }
}

#[test]
fn entries_that_point_in_a_circle_end_at_the_limit() {
    let mut tree = tree();
    tree.memory.put_u64(USR + 0x18, TOOL);
    assert!(matches!(in_root(&tree, TOOL), Err(Error::Limit { what: "path", .. })));
}

#[test]
fn mounts_that_point_in_a_circle_end_at_the_limit() {
    let mut tree = tree();
    mount(&mut tree.memory, 0x20_0000, 0x20_1000, RUN_ROOT, ROOT);
    assert!(matches!(path(&tree, tree.run, APP, None), Err(Error::Limit { what: "path", .. })));
}

#[test]
fn path_of_absurd_length_is_refused() {
    let mut tree = tree();
    let name = "n".repeat(255);
    for index in 0..300 {
        let at = 0x40_0000 + index * 0x2_0000;
        dentry(&mut tree.memory, at, if index == 0 { ROOT } else { at - 0x2_0000 }, &name);
    }
    assert_eq!(in_root(&tree, 0x40_0000 + 199 * 0x2_0000).unwrap().len(), 200 * 256);
    assert!(matches!(in_root(&tree, 0x40_0000 + 299 * 0x2_0000), Err(Error::Limit { what: "path", .. })));
}

#[test]
fn hostile_length_of_a_name_is_refused() {
    let mut tree = tree();
    tree.memory.put_u32(BIN + 0x24, u32::MAX);
    assert!(matches!(in_root(&tree, TOOL), Err(Error::Corrupt { what: "dentry", .. })));
}

#[test]
fn missing_entry_is_an_error_that_says_where() {
    let mut tree = tree();
    tree.memory.put_u64(USR + 0x18, 0xdead_0000);
    assert!(in_root(&tree, TOOL).unwrap_err().to_string().contains("0xdead"));
}

#[test]
fn open_files_have_inode_and_device_and_fail_one_by_one() {
    let mut tree = tree();
    tree.memory.zero(0x4000, 0x80).put_u64(0x4040, tree.root.mnt.as_u64()).put_u64(0x4048, TOOL);
    tree.memory.put_u64(0x4050, TOOL + 0x200);
    // A file whose inode cannot be read.
    tree.memory.zero(0x4100, 0x80).put_u64(0x4150, 0xdead_0000);
    let layout = VfsLayout::new(&types(STRUCTURES)).unwrap();
    let mut vfs = Vfs::new(&tree.memory, &layout, DynamicNames::default());
    let files = vfs.open_files(&[0x4100, 0xdead_1000, 0x4000].map(VirtAddr::new));
    assert!(files[0].is_err() && files[1].is_err());
    let file = files[2].as_ref().unwrap();
    assert_eq!((file.inode, file.device, file.place), (42, 8 << 20 | 1, place(tree.root.mnt.as_u64(), TOOL)));
}

#[test]
fn stacked_file_shows_the_path_that_the_user_opened() {
    let mut tree = tree();
    tree.memory.zero(0x4000, 0x90).put_u64(0x4040, tree.run.as_u64()).put_u64(0x4048, APP).put_u64(0x4050, APP + 0x200);
    tree.memory.put_u64(0x4080, tree.root.mnt.as_u64()).put_u64(0x4088, TOOL);
    let layout = VfsLayout::new(&types(STRUCTURES)).unwrap();
    let place_of = |mode: u32, memory: &mut Memory| {
        memory.put_u32(0x4008, mode);
        Vfs::new(memory, &layout, DynamicNames::default())
            .open_files(&[VirtAddr::new(0x4000)])
            .pop()
            .unwrap()
            .unwrap()
            .place
    };
    assert_eq!(place_of(0, &mut tree.memory), Place { mnt: tree.run, dentry: VirtAddr::new(APP) });
    assert_eq!(place_of(1 << 24, &mut tree.memory).dentry, VirtAddr::new(TOOL));
    // The bit means something else, and what follows the file is no path.
    tree.memory.put_u64(0x4080, 0x1234);
    assert_eq!(place_of(1 << 25, &mut tree.memory).dentry, VirtAddr::new(APP));
}
