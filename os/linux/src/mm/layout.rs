//! `struct mm_struct`: where the fields of an address space's description lie, and one as read.
//!
//! Must not know: regions, arguments, what the fields are used for.
//! Source: include/linux/mm_types.h, arch/x86/include/asm/mmu.h.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{MemoryView, VirtAddr, error::Result};

use super::vma::VmaLayout;
use crate::{
    record::{Record, Span},
    types::{Field, Types},
};

/// Where the fields of an `mm_struct` lie, and those of what hangs on it.
#[derive(Clone, Debug)]
pub(crate) struct MmLayout {
    span: Span,
    exe_file: Field,
    arg_start: Field,
    arg_end: Field,
    env_start: Field,
    env_end: Field,
    start_brk: Field,
    brk: Field,
    start_stack: Field,
    vsyscall: Option<Vsyscall>,
    pub(super) vma: VmaLayout,
}

/// How an address space says that it has the vsyscall page: processes of 32-bit programs do not.
#[derive(Clone, Copy, Debug)]
enum Vsyscall {
    /// Bit 1 of `context.flags`, `MM_CONTEXT_HAS_VSYSCALL` (Linux 5.11, 5042d40a264c).
    Flag(Field),
    /// `context.ia32_compat` is not `TIF_IA32` (bit 17 of the thread flags).
    NotCompat(Field),
}

impl MmLayout {
    /// The layout of this kernel.
    ///
    /// # Errors
    /// [`Error::NotFound`](memflow_core::Error::NotFound) with the structure and the field that the kernel's type information does
    /// not have.
    pub(crate) fn new(types: &Types) -> Result<Self> {
        let field = |path| types.field("mm_struct", path);
        let [exe_file, arg_start, arg_end, env_start, env_end, start_brk, brk, start_stack] = [
            field("exe_file")?,
            field("arg_start")?,
            field("arg_end")?,
            field("env_start")?,
            field("env_end")?,
            field("start_brk")?,
            field("brk")?,
            field("start_stack")?,
        ];
        let vsyscall = types
            .find_field("mm_struct", "context.flags")
            .map(Vsyscall::Flag)
            .or_else(|| types.find_field("mm_struct", "context.ia32_compat").map(Vsyscall::NotCompat));
        let vma = VmaLayout::new(types)?;
        let read = [exe_file, arg_start, arg_end, env_start, env_end, start_brk, brk, start_stack, vma.root()];
        let more = vsyscall.map(|vsyscall| match vsyscall {
            Vsyscall::Flag(field) | Vsyscall::NotCompat(field) => field,
        });
        Ok(Self {
            span: Span::of("mm_struct", read.into_iter().chain(more))?,
            exe_file,
            arg_start,
            arg_end,
            env_start,
            env_end,
            start_brk,
            brk,
            start_stack,
            vsyscall,
            vma,
        })
    }
}

/// One address space's description.
#[derive(Clone, Debug)]
pub(crate) struct Mm {
    /// The `struct file` of the executable; null when there is none.
    pub(crate) exe_file: VirtAddr,
    pub(super) arg_start: VirtAddr,
    pub(super) arg_end: VirtAddr,
    pub(super) env_start: VirtAddr,
    pub(super) env_end: VirtAddr,
    pub(super) start_brk: VirtAddr,
    pub(super) brk: VirtAddr,
    pub(super) start_stack: VirtAddr,
    pub(super) has_vsyscall: bool,
    /// Root of the maple tree or first entry of the list, as the layout says.
    pub(super) vma_root: VirtAddr,
}

impl Mm {
    /// Reads the `mm_struct` at `address`.
    pub(crate) fn read(view: &dyn MemoryView, layout: &MmLayout, address: VirtAddr) -> Result<Self> {
        const HAS_VSYSCALL: u64 = 1 << 1;
        const TIF_IA32: u64 = 17;

        let record = Record::read(view, address, layout.span)?;
        Ok(Self {
            exe_file: record.pointer(layout.exe_file)?,
            arg_start: record.pointer(layout.arg_start)?,
            arg_end: record.pointer(layout.arg_end)?,
            env_start: record.pointer(layout.env_start)?,
            env_end: record.pointer(layout.env_end)?,
            start_brk: record.pointer(layout.start_brk)?,
            brk: record.pointer(layout.brk)?,
            start_stack: record.pointer(layout.start_stack)?,
            has_vsyscall: match layout.vsyscall {
                Some(Vsyscall::Flag(field)) => record.number(field)? & HAS_VSYSCALL != 0,
                Some(Vsyscall::NotCompat(field)) => record.number(field)? != TIF_IA32,
                None => true,
            },
            vma_root: record.pointer(layout.vma.root())?,
        })
    }
}
