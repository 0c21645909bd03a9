//! Views of the other side.
//!
//! Must not know: how an address becomes bytes.

use std::sync::Arc;

use memflow_abi::{View, ViewInfo, ViewTable};

use super::{
    handle::{Handle, broken, required},
    memory::{ReadFn, WriteFn, read_ops, refuse, write_ops},
};
use crate::{
    address::VirtAddr,
    error::Result,
    memory::{ViewRead, ViewWrite, finish_reads, finish_writes},
    plugin::wire::raw,
    view::{MemoryView, ViewMetadata},
};

/// A view of the other side.
#[derive(Debug)]
pub(super) struct Foreign {
    who: Arc<str>,
    handle: Handle,
    read: ReadFn,
    write: Option<WriteFn>,
    metadata: ViewMetadata,
}

/// Takes over a handle of a view. `who` is the plugin, for messages.
///
/// # Errors
/// What is wrong with the handle or with what it says of itself.
///
/// # Safety
/// The handle is one that the ABI says is handed over.
pub(super) unsafe fn view(source: View, who: &Arc<str>) -> Result<Foreign> {
    // SAFETY: the caller's promise.
    let table = unsafe { raw::structure::<ViewTable>(source.table) };
    let table = table.ok_or_else(|| broken(who, "the table of a view cannot be used"))?;
    let drop = required(who, "drop", table.drop)?;
    // SAFETY: the caller's promise: the handle is handed over, and this is its table's function.
    let handle = unsafe { Handle::new(source.context, drop) };
    let read = required(who, "read", table.read)?;
    let info = required(who, "info", table.info)?;
    let mut covers = ViewInfo { last_address: 0, pointer_size: 0, read_only: 1 };
    // SAFETY: a function of the handle's table with its context; the information is the callee's to fill in.
    unsafe { info(handle.context(), &raw mut covers) };
    let pointer_size = match covers.pointer_size {
        4 => 4,
        8 => 8,
        size => return Err(broken(who, format_args!("a view has pointers of {size} bytes, expected 4 or 8"))),
    };
    let metadata = ViewMetadata {
        last_address: VirtAddr::new(covers.last_address),
        pointer_size,
        read_only: covers.read_only != 0 || table.write.is_none(),
    };
    Ok(Foreign { who: who.clone(), handle, read, write: table.write, metadata })
}

impl MemoryView for Foreign {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        // SAFETY: a function of the handle's table with its context.
        unsafe { read_ops(self.read, self.handle.context(), ops) };
        finish_reads(&self.who, ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        match self.write {
            // SAFETY: a function of the handle's table with its context.
            Some(write) if !self.metadata.read_only => unsafe { write_ops(write, self.handle.context(), ops) },
            _ => refuse(ops),
        }
        finish_writes(&self.who, ops)
    }

    fn metadata(&self) -> ViewMetadata {
        self.metadata
    }
}
