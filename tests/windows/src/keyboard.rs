//! The window system: its drivers, mapped for the processes of a session, and the state of the keyboard in their data.
//!
//! Owns: code that leads to a keyboard's state, the states themselves. Must not know: who presses keys.
//! Keeps: every session has a state of its own, at the same address where that lies in a driver's data; whatever the code does not say
//! is drawn from the seed, and code that nearly leads somewhere stands beside code that does.
//! Source: instructions as readers of keyboards know them, for builds until 22000, 22621 to 22631, and later; Intel SDM volume 2.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Error,
    builder::Builder,
    description::KeyboardForm,
    images::Shared,
    machine::{KERNEL, SpaceId},
    pe::{CodeView, Pe, Use},
    physical::PAGE,
    pool::Pool,
    tables::Rights,
    truth::{Keyboard, Process},
};

/// Bytes of a keyboard's state.
const STATE: usize = 64;
/// Bytes of a session's state.
const SESSION: u64 = 0x5000;

/// What there is of the window system.
#[derive(Default)]
pub(crate) struct WindowSystem {
    pub(crate) drivers: Vec<Shared>,
    pub(crate) keyboards: Vec<Keyboard>,
    /// What processes of each session share.
    pub(crate) spaces: BTreeMap<u32, SpaceId>,
}

/// A driver's image with room for functions, and what is in it so far.
struct Driver {
    name: &'static str,
    base: u64,
    pe: Pe,
    /// Where the next function goes.
    next: u32,
    data: u32,
    constants: u32,
}

impl Driver {
    fn new(builder: &mut Builder<'_>, name: &'static str, base: u64) -> Self {
        let rng = &mut builder.machine.rng;
        let mut pe = Pe::new(true, false, rng.u32(0x4000_0000..0x6000_0000));
        let text = pe.next_section(".text", 0x4000, Use::Code);
        pe.entry = text;
        let data = pe.next_section(".data", 0x3000, Use::Data);
        let constants = pe.next_section(".rdata", 0x2000, Use::Constants);
        Self { name, base, pe, next: text + 0x100 + 16 * rng.u32(0..0x80), data, constants }
    }

    /// A variable at a place that is drawn.
    fn variable(&self, builder: &mut Builder<'_>) -> u32 {
        self.data + 0x100 + 0x10 * builder.machine.rng.u32(0..0x200)
    }

    /// Code in which `mov rax, [rip+…]` comes first, for the variable at `variable`.
    fn reads(&mut self, builder: &mut Builder<'_>, variable: u32, then: &[u8]) {
        // sub rsp, 28h
        let start = [0x48, 0x83, 0xec, 0x28];
        self.pe.write(self.next, &start);
        let at = self.next + start.len() as u32;
        let distance = variable.wrapping_sub(at + 7);
        self.pe.write(at, &[&[0x48, 0x8b, 0x05], &distance.to_le_bytes()[..], then].concat());
        self.further(builder);
    }

    fn code(&mut self, builder: &mut Builder<'_>, code: &[u8]) {
        self.pe.write(self.next, code);
        self.further(builder);
    }

    fn further(&mut self, builder: &mut Builder<'_>) {
        self.next += 0x40 + 16 * builder.machine.rng.u32(0..0x40);
    }

    fn finish(mut self, builder: &mut Builder<'_>, exports: Vec<(String, u32)>) -> Shared {
        let mut next = self.constants;
        if !exports.is_empty() {
            next = self.pe.export(next, self.name, exports).next_multiple_of(16);
        }
        let guid = format!("{:016X}{:016X}", builder.machine.rng.u64(..), builder.machine.rng.u64(..));
        let file = self.name.replace(".sys", ".pdb");
        self.pe.debug(next, &CodeView { guid, age: 1, file });
        self.pe.headers(self.base, true);
        Shared {
            path: format!(r"\SystemRoot\System32\{}", self.name),
            base: self.base,
            pe: self.pe,
            version: BTreeMap::new(),
            section: None,
        }
    }
}

/// Behind the variable: `mov [rcx+…], rax; mov rcx, [rdi+…]; …; ret`.
const USED: [u8; 20] =
    [0x48, 0x89, 0x81, 0x38, 0x1a, 0, 0, 0x48, 0x8b, 0x8f, 0x10, 2, 0, 0, 0x48, 0x83, 0xc4, 0x28, 0x90, 0xc3];
/// `mov rax, [rax+rcx*8]; mov rax, [rax]; add rsp, 28h; ret`.
const INDEXED: [u8; 12] = [0x48, 0x8b, 0x04, 0xc8, 0x48, 0x8b, 0, 0x48, 0x83, 0xc4, 0x28, 0xc3];
/// `dec ecx`.
const DECREMENT: [u8; 2] = [0xff, 0xc9];

impl Builder<'_> {
    /// The window system, if the description has one.
    pub(crate) fn window_system(&mut self, processes: &[Process]) -> Result<WindowSystem, Error> {
        let Some(form) = self.description.keyboard else { return Ok(WindowSystem::default()) };
        let mut system = WindowSystem::default();
        let sessions: BTreeSet<u32> = processes.iter().filter_map(|process| process.session).collect();
        for session in &sessions {
            system.spaces.insert(*session, self.machine.session_space()?);
        }
        let base = self.session_slot() + self.machine.rng.u64(0..0x1000) * PAGE;
        let mut driver = Driver::new(self, "win32kbase.sys", base);
        let variable = driver.variable(self);
        let mut exports = vec![("EngCreateBitmap".to_owned(), driver.next), ("gpsi".to_owned(), driver.data)];
        match form {
            KeyboardForm::Exported => exports.push(("gafAsyncKeyState".to_owned(), variable)),
            KeyboardForm::Used => {
                // One that stores it and does not go on as it should, then those that do.
                let other = driver.variable(self);
                driver.reads(self, other, &[&USED[..7], &[0xc3]].concat());
                driver.reads(self, variable, &USED);
                driver.reads(self, variable, &USED);
            }
            KeyboardForm::SessionDriver | KeyboardForm::SessionSlots => {
                let offset = 0x3000 + 8 * self.machine.rng.u32(0..0x300);
                self.asynchronous(&mut driver, offset);
                system.keyboards = self.session_states(form, &sessions, u64::from(offset), &mut system.drivers)?;
            }
        }
        let shared = driver.finish(self, exports);
        self.map_for_sessions(&shared, &system.spaces)?;
        system.drivers.push(shared);
        if system.keyboards.is_empty() {
            for (session, space) in &system.spaces {
                let address = base + u64::from(variable);
                let (bytes, keyboard) = self.keys(*session, address);
                self.machine.write(*space, address, &bytes)?;
                system.keyboards.push(keyboard);
            }
        }
        Ok(system)
    }

    /// The function that looks at the state of a key: `mov ecx, 0ffff8000h; and sil, [rdi+rax+offset]; cmovne …`.
    fn asynchronous(&mut self, driver: &mut Driver, offset: u32) {
        // The same for another member, without the flag before it.
        driver.code(
            self,
            &[&[0x40, 0x22, 0xb4, 0x07][..], &0x1238_u32.to_le_bytes(), &[0x41, 0x0f, 0x45, 0xcf, 0xc3]].concat(),
        );
        let code = [
            &[0xb9, 0x00, 0x80, 0xff, 0xff, 0x40, 0x22, 0xb4, 0x07][..],
            &offset.to_le_bytes(),
            &[0x41, 0x0f, 0x45, 0xcf, 0xc3],
        ];
        driver.code(self, &code.concat());
    }

    /// A part of the kernel's half that nobody else uses.
    fn session_slot(&mut self) -> u64 {
        let root = self.machine.of(KERNEL).root;
        let free: Vec<u64> = (0x101..0x1ec)
            .filter(|slot| *slot != self.machine.self_reference && self.machine.memory.number(root + slot * 8, 8) == 0)
            .collect();
        let slot = free[self.machine.rng.usize(0..free.len())];
        0xffff_0000_0000_0000 | slot << 39
    }

    /// Pages of the image in the space of each session: those that can be written to are its own.
    fn map_for_sessions(&mut self, image: &Shared, spaces: &BTreeMap<u32, SpaceId>) -> Result<(), Error> {
        for page in (0..image.pe.size).step_by(PAGE as usize) {
            let (write, execute) = image.pe.rights(page);
            let rights = Rights { user: false, write, execute };
            let address = image.base + u64::from(page);
            let mut common = None;
            for space in spaces.values() {
                match common.filter(|_| !write) {
                    Some(frame) => self.machine.map_frame(*space, address, frame, rights)?,
                    None => {
                        common = Some(self.machine.map(*space, address, rights)?);
                        if let Some(bytes) = image.pe.page(page) {
                            self.machine.write(*space, address, &bytes[..])?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// States of sessions and the driver that leads to them, which is the same for all processes.
    fn session_states(
        &mut self,
        form: KeyboardForm,
        sessions: &BTreeSet<u32>,
        offset: u64,
        drivers: &mut Vec<Shared>,
    ) -> Result<Vec<Keyboard>, Error> {
        let name = if form == KeyboardForm::SessionDriver { "win32ksgd.sys" } else { "win32k.sys" };
        let base = self.machine.driver_pages(0x1_0000)?;
        let mut driver = Driver::new(self, name, base);
        let variable = driver.variable(self);
        // A variable that is read in the same way and holds nothing.
        let other = driver.variable(self);
        if form == KeyboardForm::SessionDriver {
            driver.reads(self, variable, &INDEXED);
        } else {
            driver.reads(self, other, &[&DECREMENT[..], &INDEXED].concat());
            driver.reads(self, variable, &[&DECREMENT[..], &INDEXED].concat());
        }
        let shared = driver.finish(self, Vec::new());
        for page in (0..shared.pe.size).step_by(PAGE as usize) {
            let (write, execute) = shared.pe.rights(page);
            let address = base + u64::from(page);
            self.machine.map(KERNEL, address, Rights { user: false, write, execute })?;
            if let Some(bytes) = shared.pe.page(page) {
                self.machine.write(KERNEL, address, &bytes[..])?;
            }
        }
        drivers.push(shared);
        // Session 1 is the first of the array: session 0 has no window system that people see.
        let last = sessions.iter().next_back().copied().unwrap_or(0);
        let array = self.machine.pool(Pool::NonPaged, 8 * u64::from(last).max(1), b"Gsgl")?;
        self.machine.put_pointer(base + u64::from(variable), array)?;
        let mut keyboards = Vec::new();
        for session in sessions.iter().filter(|session| **session > 0) {
            let state = self.machine.pool(Pool::NonPaged, SESSION, b"Ussg")?;
            let holder = self.machine.pool(Pool::NonPaged, 0x20, b"Usgh")?;
            self.machine.put_pointer(array + 8 * u64::from(session - 1), holder)?;
            self.machine.put_pointer(holder, state)?;
            let (bytes, keyboard) = self.keys(*session, state + offset);
            self.machine.write(KERNEL, state + offset, &bytes)?;
            keyboards.push(keyboard);
        }
        Ok(keyboards)
    }

    /// A state with some keys down and some switched on.
    fn keys(&mut self, session: u32, address: u64) -> ([u8; STATE], Keyboard) {
        let mut bytes = [0; STATE];
        let mut keyboard = Keyboard { session, address, down: Vec::new(), toggled: Vec::new() };
        for key in 0..=u8::MAX {
            let (byte, shift) = (usize::from(key) * 2 / 8, key % 4 * 2);
            match self.machine.rng.u8(0..16) {
                0 => {
                    bytes[byte] |= 1 << shift;
                    keyboard.down.push(key);
                }
                1 => {
                    bytes[byte] |= 2 << shift;
                    keyboard.toggled.push(key);
                }
                _ => {}
            }
        }
        (bytes, keyboard)
    }
}
