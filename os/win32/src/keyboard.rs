//! The keyboard of a session: where the window system keeps which keys are down.
//!
//! Owns: the ways to that place, by build. Must not know: how modules and processes are found.
//! Keeps: a place counts when all code that leads to one leads to this one, and its bytes can be read through a process of the session;
//! there are no places by build number alone.
//! Source: `gafAsyncKeyState` of the window system, which is exported by `win32kbase.sys` or used by its code until 10.0.22000. Since
//! 10.0.22621 it is a member of the state of a session: `win32ksgd.sys`, since 10.0.26100 `win32k.sys`, has the array of those, and
//! `GetAsyncKeyState` the member's offset. The code is as memflow's and MemProcFS's users know it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeSet;

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    error::{Error, Result, ResultExt},
    os::{Keyboard, KeyboardState, ProcessState},
    view::SpaceView,
};

use crate::{
    bytes::{Bytes, number},
    eprocess::ProcessDetails,
    modules::LoadedModule,
    os::Win32Os,
    pe::{Exports, Image, Section},
    reader::Reader,
    shared_data::SystemData,
};

/// `IMAGE_SCN_MEM_EXECUTE`.
const EXECUTABLE: u32 = 0x2000_0000;
/// Bytes of the state: two bits for each key.
const STATE: usize = 64;
/// Processes of the session that are tried.
const MAX_TRIED: usize = 8;
/// The state of a session is smaller.
const MAX_OFFSET: u32 = 0x1_0000;
/// Highest number of a session that is believed; the array of sessions is as long.
const MAX_SESSION: u32 = 0xffff;
/// The first build in which `win32k.sys` has the array of sessions.
const SLOTS_IN_WIN32K: u32 = 22632;

/// Code: bytes, and `None` for any.
type Code = &'static [Option<u8>];

/// Makes [`Code`] from bytes, `_` for any.
macro_rules! code {
    (@ _) => { None };
    (@ $byte:literal) => { Some($byte) };
    ($($byte:tt)*) => { &[$(code!(@ $byte)),*] };
}

/// `mov rax, [rip+…]; mov [rcx+…], rax; mov rcx, [rdi+…]`.
const USED: Code = code!(0x48 0x8b 0x05 _ _ _ _ 0x48 0x89 0x81 _ _ 0x00 0x00 0x48 0x8b 0x8f);
/// `mov rax, [rip+…]; mov rax, [rax+rcx*8]`.
const INDEXED: Code = code!(0x48 0x8b 0x05 _ _ _ _ 0x48 0x8b 0x04 0xc8);
/// `mov rax, [rip+…]; dec ecx`.
const DECREMENTED: Code = code!(0x48 0x8b 0x05 _ _ _ _ 0xff 0xc9);
/// `mov ecx, 0ffff8000h; and sil, [rdi+rax+…]`, and the prefix of what follows.
const TESTED: Code = code!(0xb9 0x00 0x80 0xff 0xff _ 0x22 0xb4 _ _ _ _ _ 0x41);
/// Where the offset stands in that.
const TESTED_OFFSET: u64 = 9;

/// Where a state lies, and through which address space.
struct Place {
    view: SpaceView,
    at: VirtAddr,
}

impl Win32Os {
    /// Where the keyboard of the session is that people sit at.
    fn keyboard_place(&self) -> Result<Place> {
        let kernel = self.found();
        if kernel.view.metadata().pointer_size != 8 {
            let why = "the window system is known on x64 only".to_owned();
            return Err(Error::Unsupported { what: "the keyboard of a 32-bit Windows".to_owned(), why });
        }
        let modules = self.kernel_modules()?.items;
        let processes = self.process_details()?;
        let console = SystemData::read(&kernel.view).and_then(|data| data.console_session);
        let sessions: BTreeSet<u32> = processes.items.iter().filter_map(|process| process.session).collect();
        // Nobody sits at session 0 since Windows Vista.
        let session = console
            .filter(|session| sessions.contains(session))
            .or_else(|| sessions.into_iter().find(|session| (1..=MAX_SESSION).contains(session)))
            .ok_or_else(|| Error::NotFound { what: "process of a session", name: "that has a keyboard".to_owned() })?;
        let mut refused = None;
        let of_session = |one: &&ProcessDetails| one.session == Some(session) && one.info.state != ProcessState::Zombie;
        for process in processes.items.iter().filter(of_session).take(MAX_TRIED) {
            let Some(root) = process.info.root else { continue };
            let view = SpaceView::new(kernel.memory.clone(), kernel.space_of_root(root));
            let place = locate(&view, &modules, session, kernel.version.build);
            // Its bytes have to be there.
            match place.and_then(|at| view.read_bytes(at, number(STATE)).map(|_| at)) {
                Ok(at) => return Ok(Place { view, at }),
                Err(error) => {
                    let process = format!("process {} ({})", process.info.pid, process.info.name);
                    refused.get_or_insert(error.context(process));
                }
            }
        }
        let none = || Error::NotFound { what: "process of session", name: session.to_string() };
        Err(refused.unwrap_or_else(none).context("keyboard"))
    }
}

impl Keyboard for Win32Os {
    fn state(&self) -> Result<KeyboardState> {
        let Place { view, at } = self.keyboard_place()?;
        let mut bits = [0; STATE];
        view.read_into(at, &mut bits).context(|| "keyboard".into())?;
        Ok(KeyboardState::from_bits(bits))
    }

    fn set_down(&self, key: u8, down: bool) -> Result<()> {
        let Place { view, at } = self.keyboard_place()?;
        let (byte, mask) = KeyboardState::place(key);
        let at = at.wrapping_add(number(byte));
        let bits: u8 = view.read(at).context(|| "keyboard".into())?;
        view.write(at, &if down { bits | mask } else { bits & !mask }).context(|| "keyboard".into())
    }
}

/// Where the state of a session's keyboard lies.
fn locate(view: &SpaceView, modules: &[LoadedModule], session: u32, build: u32) -> Result<VirtAddr> {
    let module = |name: &str| modules.iter().find(|module| module.info.name.eq_ignore_ascii_case(name));
    let image = |module: &LoadedModule| {
        Image::read(view, module.info.base).context(|| format!("module {}", module.info.name).into())
    };
    let base = module("win32kbase.sys");
    let base = base.ok_or_else(|| Error::NotFound { what: "module", name: "win32kbase.sys".to_owned() })?;
    let base = image(base)?;
    if let Some(at) = Exports::read(view, &base).ok().and_then(|exports| exports.address_of("gafAsyncKeyState")) {
        return Ok(at);
    }
    let (driver, code) = match module("win32ksgd.sys") {
        Some(driver) => (driver, INDEXED),
        None if build >= SLOTS_IN_WIN32K => {
            let driver = module("win32k.sys");
            (driver.ok_or_else(|| Error::NotFound { what: "module", name: "win32k.sys".to_owned() })?, DECREMENTED)
        }
        None => {
            let places = targets(view, &base, USED).collect();
            return only("code of win32kbase.sys that reads gafAsyncKeyState", &base, places);
        }
    };
    let offsets = found(view, &base, TESTED);
    let offsets = offsets.filter_map(|(code, _)| Bytes(&code).u32(TESTED_OFFSET)).filter(|offset| *offset < MAX_OFFSET);
    let offset = only("code of win32kbase.sys that tests a key's state", &base, offsets.collect())?;
    let driver_image = image(driver)?;
    let reader = Reader::new(view);
    let slot = u64::from(session.saturating_sub(1)).saturating_mul(reader.pointer_size());
    let state = |variable: VirtAddr| {
        let array = reader.pointer(variable, 0).ok().filter(|array| reader.is_kernel(*array))?;
        let holder = reader.pointer(array, slot).ok().filter(|holder| reader.is_kernel(*holder))?;
        reader.pointer(holder, 0).ok().filter(|state| reader.is_kernel(*state))
    };
    let places: BTreeSet<VirtAddr> = targets(view, &driver_image, code)
        .filter_map(state)
        .map(|state| state.wrapping_add(offset.into()))
        .filter(|at| view.read_bytes(*at, number(STATE)).is_ok())
        .collect();
    only("code that reads the states of sessions", &driver_image, places)
}

/// The only one of what code names.
fn only<T>(what: &'static str, image: &Image, found: BTreeSet<T>) -> Result<T> {
    let count = found.len();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Error::Corrupt {
            what,
            address: image.base.into(),
            expected: "one place".into(),
            found: format!("{count} places").into(),
        }),
    }
}

/// Variables in the image's data that the first instruction of `code` reads, wherever it stands.
fn targets<'a>(view: &'a SpaceView, image: &'a Image, code: Code) -> impl Iterator<Item = VirtAddr> + 'a {
    found(view, image, code).filter_map(|(code, at)| {
        // Behind three bytes: the distance from the next instruction, with its sign.
        let distance = Bytes(&code).u32(3)?.cast_signed();
        let target = VirtAddr::new(at.wrapping_add(7).as_u64().wrapping_add_signed(distance.into()));
        let inside = |section: &Section| {
            let start = image.at(section.offset);
            section.is_writable() && target.offset_from(start).is_some_and(|offset| offset < section.size.into())
        };
        image.sections.iter().any(inside).then_some(target)
    })
}

/// Where code stands in the image, and its bytes.
fn found<'a>(view: &'a SpaceView, image: &'a Image, code: Code) -> impl Iterator<Item = (Vec<u8>, VirtAddr)> + 'a {
    let executable = image.sections.iter().filter(|section| section.flags & EXECUTABLE != 0);
    executable.flat_map(move |section| {
        let bytes = image.readable(view, section);
        let start = image.at(section.offset);
        let fits =
            |window: &&[u8]| code.iter().zip(*window).all(|(wanted, byte)| wanted.is_none_or(|one| one == *byte));
        let at = |(offset, window): (usize, &[u8])| (window.to_vec(), start.wrapping_add(number(offset)));
        bytes.windows(code.len()).enumerate().filter(|(_, window)| fits(window)).map(at).collect::<Vec<_>>()
    })
}
