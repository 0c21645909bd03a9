//! From a kernel to an entry, and back.
//!
//! Owns: what must hold in memory before an entry is used. Must not know: how the kernel's address space was found, files.
//! Keeps: nothing of an entry is used before the memory has confirmed all of it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::Arc;

use memflow_core::{Error, MemoryViewExt, Result, VirtAddr, VirtRange, view::SpaceView};

use super::{
    entry::{Entry, MAX_BUILD_ID, Part, TablePlace},
    material::{self, Material},
    store::Store,
};
use crate::{
    identity,
    memo::Memo,
    symbols::{Encoding, Place, RawTable, Symbols},
    types::{Answer, Types},
};

/// Symbols that an entry must have to be confirmed.
const NEEDED: [&str; 8] =
    ["_text", "_stext", "init_uts_ns", "linux_banner", "init_task", "__start_notes", "__stop_notes", "__start_BTF"];
/// Largest section of types that is read.
const MAX_SECTION: u64 = 64 << 20;
/// Names of the kernel's root page table: since v4.13, before.
pub(crate) const ROOTS: [&str; 2] = ["init_top_pgt", "init_level4_pgt"];
/// What the banner starts with.
const BANNER: &[u8] = b"Linux version ";
/// What the first task is called, with one processor; with more, a number follows.
const FIRST_TASK: &[u8] = b"swapper";

/// An entry that memory has confirmed.
pub(crate) struct Confirmed {
    entry: Entry,
    image: VirtRange,
    /// Address and length of the section of types.
    section: (VirtAddr, u64),
    place: Place,
}

/// An entry in use: its kernel's symbols and types, and what is needed to keep it.
pub(crate) struct Recalled {
    pub(crate) symbols: Symbols,
    pub(crate) types: Types,
    pub(crate) kept: Kept,
}

/// An entry without its answers, which are in the memos.
pub(crate) struct Kept {
    entry: Entry,
    symbols: Arc<Memo<Option<u64>>>,
    types: Arc<Memo<Answer>>,
}

/// Keeps what is learnt of a kernel: writes it when nobody asks any more.
pub(crate) struct Keeper {
    store: Store,
    is_recalled: bool,
    kept: Kept,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let (symbols, new_symbols) = self.kept.symbols.all();
        let (types, new_types) = self.kept.types.all();
        if new_symbols || new_types {
            self.store.save(&Entry { symbols, types, ..self.kept.entry.clone() });
        }
    }
}

impl Keeper {
    /// Goes on with an entry that was found.
    pub(crate) fn go_on(store: Store, kept: Kept) -> Self {
        log::debug!(
            "the kernel with build id {} is known from an earlier run",
            identity::hexadecimal(&kept.entry.build_id)
        );
        Self { store, is_recalled: true, kept }
    }

    /// True when there was an entry.
    pub(crate) fn is_recalled(&self) -> bool {
        self.is_recalled
    }

    /// Starts to keep the answers of a kernel of which there is no entry; `None` when it is not one that can be recognised again.
    pub(crate) fn start(store: Store, view: &SpaceView, symbols: &mut Symbols, types: &mut Types) -> Option<Self> {
        let kept = learn(view, symbols, types)?;
        Some(Self { store, is_recalled: false, kept })
    }
}

fn learn(view: &SpaceView, symbols: &mut Symbols, types: &mut Types) -> Option<Kept> {
    let raw = symbols.table().ok()?.raw().clone();
    let place = raw.place;
    if place.encoding == Encoding::Absolute {
        // Addresses differ from boot to boot, and with them the bytes of the table.
        return None;
    }
    let (start, end) = (symbols.address_of("_text")?, symbols.address_of("_end")?);
    let image = VirtRange::new(start, end.offset_from(start)?)?;
    let build_id = identity::build_id(view, symbols).filter(|id| (1..=MAX_BUILD_ID).contains(&id.len()))?;
    let offset = |address: VirtAddr| address.offset_from(image.start()).filter(|_| image.contains(address));
    let part = |address: VirtAddr, len: u64| {
        let part = Part { offset: offset(address)?, len };
        (part.offset.checked_add(len)? <= image.len()).then_some(part)
    };
    let section_bytes = types.section()?;
    let section = part(symbols.address_of("__start_BTF")?, u64::try_from(section_bytes.len()).ok()?)?;
    let table = TablePlace {
        symbols: place.symbols,
        encoding: place.encoding,
        names: part(place.names, place.names_len)?,
        texts: part(place.token_table, place.texts_len)?,
        index: offset(place.token_index)?,
        values: offset(place.values)?,
        base: match place.base {
            Some(base) => Some(offset(base)?),
            None => None,
        },
    };
    let material = Material { section: material::of_section(section_bytes), table: material::of_table(&raw) };
    let known = (symbols.remember(image)?, types.remember());
    for name in NEEDED {
        symbols.address_of(name)?;
    }
    // One of them is there; it depends on the version, which.
    for name in ROOTS {
        symbols.address_of(name);
    }
    types.find_field("task_struct", "comm")?;
    let entry = Entry {
        build_id,
        material,
        image_len: image.len(),
        section,
        table,
        symbols: Default::default(),
        types: Default::default(),
    };
    Some(Kept { entry, symbols: known.0, types: known.1 })
}

/// Checks that an entry is of the kernel whose image starts at `start`.
///
/// # Errors
/// What in memory is not as the entry says.
pub(crate) fn confirm(view: &SpaceView, entry: Entry, start: VirtAddr) -> Result<Confirmed> {
    let differs = |what: &'static str, address: VirtAddr, expected: String| Error::Corrupt {
        what,
        address: address.into(),
        expected: expected.into(),
        found: "other bytes".into(),
    };
    let image = VirtRange::new(start, entry.image_len)
        .ok_or_else(|| differs("kernel's image", start, format!("{:#x} bytes", entry.image_len)))?;
    let symbol = |name: &'static str| -> Result<VirtAddr> {
        let offset = entry.symbol(name).ok_or_else(|| Error::NotFound { what: "symbol", name: name.to_owned() })?;
        Ok(start.wrapping_add(offset))
    };
    for name in NEEDED {
        symbol(name)?;
    }
    let notes = symbol("__start_notes")?;
    if identity::build_id_between(view, notes, symbol("__stop_notes")?).as_ref() != Some(&entry.build_id) {
        return Err(differs(
            "notes of the kernel",
            notes,
            format!("build id {}", identity::hexadecimal(&entry.build_id)),
        ));
    }
    let Some(Answer::Field(Some(comm))) = entry.types.get("field\ttask_struct\tcomm") else {
        return Err(Error::NotFound { what: "field", name: "task_struct.comm".to_owned() });
    };
    let first_task = symbol("init_task")?.wrapping_add(comm.offset);
    for (what, at, expected) in
        [("linux_banner", symbol("linux_banner")?, BANNER), ("init_task", first_task, FIRST_TASK)]
    {
        let mut found = vec![0; expected.len()];
        view.read_into(at, &mut found)?;
        if found != expected {
            return Err(differs(what, at, format!("{:?}", String::from_utf8_lossy(expected))));
        }
    }
    let at = |offset: u64| start.wrapping_add(offset);
    let TablePlace { symbols, encoding, names, texts, index, values, base } = entry.table;
    let place = Place {
        symbols,
        names: at(names.offset),
        names_len: names.len,
        token_table: at(texts.offset),
        texts_len: texts.len,
        token_index: at(index),
        encoding,
        values: at(values),
        base: base.map(at),
    };
    let section = (at(entry.section.offset), entry.section.len);
    if section.1 > MAX_SECTION {
        return Err(Error::Limit { what: "BTF section", address: section.0.into(), limit: MAX_SECTION });
    }
    place.check()?;
    let material = material::of_memory(view, section, &place)?;
    if material != entry.material {
        return Err(differs("types and symbols", start, "those that are known by this build id".to_owned()));
    }
    Ok(Confirmed { entry, image, section, place })
}

impl Confirmed {
    /// The address of a symbol, if the entry says that there is one.
    pub(crate) fn address_of(&self, name: &str) -> Option<VirtAddr> {
        self.entry.symbol(name).map(|offset| self.image.start().wrapping_add(offset))
    }

    /// The kernel's symbols and types, of which those that the entry does not answer are found through `view`.
    pub(crate) fn open(self, view: &SpaceView) -> Recalled {
        let Self { entry, image, section, place } = self;
        let symbols = Arc::new(Memo::with(entry.symbols.clone()));
        let types = Arc::new(Memo::with(entry.types.clone()));
        let own_view = || SpaceView::new(view.memory().clone(), view.space().clone());
        let (view, expected) = (own_view(), entry.material.table);
        let read_table = move || {
            let raw = RawTable::read(&view, place)?;
            material::expect(place.names, expected, material::of_table(&raw)).map(|()| raw)
        };
        let (view, expected) = (own_view(), entry.material.section);
        let read_section = move || {
            let bytes = view.read_bytes(section.0, section.1)?;
            material::expect(section.0, expected, material::of_section(&bytes)).map(|()| bytes)
        };
        Recalled {
            symbols: Symbols::remembered(place, Box::new(read_table), image, symbols.clone()),
            types: Types::remembered(Box::new(read_section), types.clone()),
            kept: Kept { entry, symbols, types },
        }
    }
}
