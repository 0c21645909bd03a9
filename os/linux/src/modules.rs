//! Modules of the kernel (`struct module`).
//!
//! Owns: the list of modules, where each lies, who uses it. Must not know: symbols of modules.
//! Source: include/linux/module.h, kernel/module/procfs.c (what /proc/modules shows; before Linux 5.19 kernel/module.c).

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::HashMap;

use memflow_core::{
    MemoryView, VirtAddr, VirtRange,
    error::{Error, Result},
    os::{Listing, ModuleInfo},
};

use crate::{
    list::{self, List},
    record::{Record, Span},
    types::{Field, Types},
};

/// Modules of one kernel; distributions ship a few thousand.
const MAX_MODULES: u64 = 1 << 14;
/// Users of all modules together.
const MAX_USERS: u64 = 1 << 18;
/// Kinds of memory that a module can have (`MOD_MEM_NUM_TYPES` is 7).
const MAX_PARTS: u64 = 64;

/// Where the fields of a module lie.
#[derive(Clone, Debug)]
pub(crate) struct ModuleLayout {
    span: Span,
    list: Field,
    state: Field,
    name: Field,
    /// The parts of its memory; the first is where /proc says the module lies.
    parts: Vec<Part>,
    users: Option<Users>,
    states: States,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    base: Field,
    size: Field,
}

/// The list of modules that use this one; a kernel that cannot unload modules has none.
#[derive(Clone, Copy, Debug)]
struct Users {
    head: Field,
    span: Span,
    node: Field,
    source: Field,
}

/// `enum module_state`.
#[derive(Clone, Copy, Debug)]
struct States {
    coming: u64,
    going: u64,
    unformed: u64,
}

impl ModuleLayout {
    /// The layout of this kernel.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the structure and the field that the kernel's type information does not have.
    pub(crate) fn new(types: &Types) -> Result<Self> {
        let field = |path| types.field("module", path);
        let (list, state, name) = (field("list")?, field("state")?, field("name")?);
        let parts = parts(types)?;
        let users = match types.find_field("module", "source_list") {
            Some(head) => {
                let (node, source) = (types.field("module_use", "source_list")?, types.field("module_use", "source")?);
                Some(Users { head, span: Span::of("module_use", [node, source])?, node, source })
            }
            None => None,
        };
        let constant = |name, default| {
            types.enum_value("module_state", name).and_then(|value| u64::try_from(value).ok()).unwrap_or(default)
        };
        let states = States {
            coming: constant("MODULE_STATE_COMING", 1),
            going: constant("MODULE_STATE_GOING", 2),
            unformed: constant("MODULE_STATE_UNFORMED", 3),
        };
        let read = [list, state, name].into_iter();
        let read =
            read.chain(parts.iter().flat_map(|part| [part.base, part.size])).chain(users.map(|users| users.head));
        Ok(Self { span: Span::of("module", read)?, list, state, name, parts, users, states })
    }
}

/// The parts of a module's memory, the one that /proc shows the address of first.
fn parts(types: &Types) -> Result<Vec<Part>> {
    // Linux 6.4 (ac3b43283923): an array by kind of memory.
    if let Some(memory) = types.find_field("module", "mem") {
        let (base, size) = (types.field("module_memory", "base")?, types.field("module_memory", "size")?);
        let stride = types.size_of("module_memory")?;
        let count = memory.size.checked_div(stride).unwrap_or_default().min(MAX_PARTS);
        let text = types.enum_value("mod_mem_type", "MOD_TEXT").and_then(|text| u64::try_from(text).ok()).unwrap_or(0);
        let part = |index: u64| {
            let at = memory.offset.checked_add(index.checked_mul(stride)?)?;
            let inner = |field: Field| Some(Field { offset: at.checked_add(field.offset)?, ..field });
            Some(Part { base: inner(base)?, size: inner(size)? })
        };
        let order = [text].into_iter().chain((0..count).filter(|index| *index != text));
        return Ok(order.filter_map(part).collect());
    }
    // Linux 4.5 (7523e4dc5057) to 6.3: what stays, what is dropped after the start, and data where it lies apart (5.18).
    let part = |layout: &str| {
        let base = types.find_field("module", &format!("{layout}.base"))?;
        let size = types.find_field("module", &format!("{layout}.size"))?;
        Some(Part { base, size })
    };
    let core = part("core_layout").ok_or_else(|| Error::NotFound { what: "field", name: "module.mem".to_owned() })?;
    Ok([core].into_iter().chain(part("init_layout")).chain(part("data_layout")).collect())
}

/// A module and where its memory lies.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) info: ModuleInfo,
    parts: Vec<VirtRange>,
    users: Option<VirtAddr>,
}

impl Module {
    /// True when `address` lies in the module's memory.
    pub(crate) fn contains(&self, address: VirtAddr) -> bool {
        self.parts.iter().any(|part| part.contains(address))
    }
}

/// The modules on the kernel's list at `head`, in its order: the one loaded last comes first.
pub(crate) fn modules(view: &dyn MemoryView, layout: &ModuleLayout, head: VirtAddr) -> Listing<Module> {
    let list = List { what: "module list", head, node: layout.list, span: layout.span, limit: MAX_MODULES };
    let mut unformed = Vec::new();
    let mut listing = list::collect(view, list, |record| {
        let module = parse(layout, record)?;
        if record.number(layout.state)? == layout.states.unformed {
            unformed.push(module.info.address);
        }
        Ok(module)
    });
    // A module that is still being put together is on the list, but /proc does not show it.
    listing.items.retain(|module| !unformed.contains(&module.info.address));
    let names: HashMap<VirtAddr, String> =
        listing.items.iter().map(|module| (module.info.address, module.info.name.clone())).collect();
    let mut left = MAX_USERS;
    for module in &mut listing.items {
        let (Some(users), Some(head)) = (layout.users, module.users) else { continue };
        let list =
            List { what: "users of a module", head, node: users.node, span: users.span, limit: left.min(MAX_MODULES) };
        let found = list::collect(view, list, |record| {
            let user = record.pointer(users.source)?;
            match names.get(&user) {
                Some(name) => Ok(name.clone()),
                None => Record::read(view, user, layout.span)?.text(layout.name),
            }
        });
        left = left.saturating_sub(u64::try_from(found.items.len()).unwrap_or(left));
        module.info.used_by = found.items;
        let name = &module.info.name;
        listing.problems.extend(found.problems.into_iter().map(|error| error.context(format!("module {name}"))));
    }
    listing
}

fn parse(layout: &ModuleLayout, record: &Record) -> Result<Module> {
    let mut parts = Vec::with_capacity(layout.parts.len());
    let mut size: u64 = 0;
    for part in &layout.parts {
        let (base, len) = (record.pointer(part.base)?, record.number(part.size)?);
        size = size.saturating_add(len);
        if len > 0 {
            parts.push(VirtRange::new(base, len).ok_or(Error::Range { address: base.into(), len })?);
        }
    }
    let base = layout.parts.first().map_or(Ok(VirtAddr::new(0)), |part| record.pointer(part.base))?;
    let state = record.number(layout.state)?;
    let mut info = ModuleInfo::new(record.address(), base, size, record.text(layout.name)?);
    info.state = Some(
        match state {
            state if state == layout.states.going => "Unloading",
            state if state == layout.states.coming => "Loading",
            _ => "Live",
        }
        .to_owned(),
    );
    let users = layout.users.map(|users| record.address().wrapping_add(users.head.offset));
    Ok(Module { info, parts, users })
}

#[cfg(test)]
mod tests;
