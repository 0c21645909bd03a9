//! A captured guest, opened in each form that users have: the file of its live memory, and an ELF dump.

use std::{path::PathBuf, sync::Arc};

use memflow_core::PhysicalMemory;
use memflow_guests::{CapturedGuest, Guests};
use memflow_linux::{LinuxOptions, LinuxOs};
use memflow_snapshot::OpenOptions;

/// How the memory of a guest is had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The RAM file that QEMU works on: no header, no facts.
    Live,
    /// What `dump-guest-memory` wrote: an ELF core with registers and VMCOREINFO.
    Dump,
}

impl Form {
    /// Both forms.
    pub const ALL: [Self; 2] = [Self::Live, Self::Dump];

    /// The file of this form.
    pub fn path(self, guest: &CapturedGuest) -> PathBuf {
        match self {
            Self::Live => guest.ram(),
            Self::Dump => guest.core(),
        }
    }

    /// The guest's physical memory.
    ///
    /// # Panics
    /// When it cannot be opened: the test fails.
    pub fn memory(self, guest: &CapturedGuest) -> Arc<dyn PhysicalMemory> {
        let path = self.path(guest);
        match memflow_snapshot::open(&path, &OpenOptions::default()) {
            Ok(snapshot) => snapshot.memory,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

/// A guest's operating system, opened in one form.
#[derive(Debug)]
pub struct Opened {
    /// The form.
    pub form: Form,
    /// The operating system.
    pub os: LinuxOs,
}

impl Opened {
    /// Opens a guest in every form.
    ///
    /// # Panics
    /// When it cannot be opened: the test fails.
    pub fn every_form(guest: &CapturedGuest) -> Vec<Self> {
        let open = |form: Form| match LinuxOs::open(form.memory(guest), &LinuxOptions::default()) {
            Ok(os) => Self { form, os },
            Err(error) => panic!("{} as {form:?}: {error}", guest.meta.name),
        };
        Form::ALL.into_iter().map(open).collect()
    }
}

/// The captured guest of this name; prepared now if it is not there yet.
///
/// # Panics
/// When it cannot be prepared: a real-guest test that cannot run fails.
pub fn guest(name: &str) -> CapturedGuest {
    match Guests::locate().and_then(|guests| guests.ensure(name)) {
        Ok(guest) => guest,
        Err(error) => panic!("guest {name}: {error}"),
    }
}

/// Makes one test per check and guest: `on_guests!(amd64 [check_a check_b])`, with `fn check_a(guest: &str)` in the caller.
#[macro_export]
macro_rules! on_guests {
    (@one $module:ident $name:literal [$($check:ident)*]) => {
        mod $module {
            $(#[test] fn $check() { super::$check($name); })*
        }
    };
    (amd64 $checks:tt) => {
        $crate::on_guests!(@one amd64_6_1_4level_pti "amd64-6.1-4level-pti" $checks);
        $crate::on_guests!(@one amd64_6_1_4level_nopti "amd64-6.1-4level-nopti" $checks);
        $crate::on_guests!(@one amd64_6_1_5level_pti "amd64-6.1-5level-pti" $checks);
        $crate::on_guests!(@one amd64_6_1_5level_nopti "amd64-6.1-5level-nopti" $checks);
        $crate::on_guests!(@one amd64_6_12_4level_pti "amd64-6.12-4level-pti" $checks);
        $crate::on_guests!(@one amd64_6_12_4level_nopti "amd64-6.12-4level-nopti" $checks);
        $crate::on_guests!(@one amd64_6_12_5level_pti "amd64-6.12-5level-pti" $checks);
        $crate::on_guests!(@one amd64_6_12_5level_nopti "amd64-6.12-5level-nopti" $checks);
    };
    (all $checks:tt) => {
        $crate::on_guests!(amd64 $checks);
        $crate::on_guests!(@one i386_6_1_legacy "i386-6.1-legacy" $checks);
        $crate::on_guests!(@one i386_6_1_pae "i386-6.1-pae" $checks);
    };
}
