//! Sections: files in memory, with the prototype entries of their pages.
//!
//! Owns: segment, control area, subsection, file object, prototype entries. Must not know: who maps a section.
//! Keeps: a page of a file has one frame, however many processes map it.
//! Source: the structures of these names in public symbols.

use crate::{
    Error,
    machine::{KERNEL, Machine},
    object::Kind,
    pool::Pool,
    soft::Soft,
    tables::Rights,
    truth::PageState,
    windows::PageFiles,
};

/// A section.
#[derive(Clone, Debug)]
pub(crate) struct SectionObject {
    /// Address of its first subsection.
    pub(crate) subsection: u64,
    /// Address of its first prototype entry.
    pub(crate) first_entry: u64,
    /// Of its last.
    pub(crate) last_entry: u64,
    /// Its file, without the volume.
    pub(crate) file: String,
    /// Its file object.
    pub(crate) file_object: u64,
    /// What its entries say.
    pub(crate) pages: Vec<SectionPage>,
}

/// A page of a section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionPage {
    pub(crate) state: PageState,
    /// Address of its prototype entry.
    pub(crate) entry: u64,
    /// Its frame, if it is in RAM.
    pub(crate) frame: Option<u64>,
}

/// What is to be in a page.
#[derive(Clone, Debug)]
pub(crate) struct PagePlan {
    pub(crate) state: PageState,
    pub(crate) protection: u8,
    pub(crate) bytes: Vec<u8>,
}

/// The volume that drive C is.
pub(crate) const VOLUME: &str = r"\Device\HarddiskVolume2";

impl Machine {
    /// A file object for a path without its volume.
    pub(crate) fn file_object(&mut self, name: &str) -> Result<u64, Error> {
        let size = if self.pointer() == 8 { 0xd8 } else { 0x80 };
        let object = self.object(Kind::File, Pool::NonPaged, size)?;
        self.put(KERNEL, object, 2, 5)?;
        self.put(KERNEL, object + 2, 2, size)?;
        let text = self.pool(Pool::Paged, name.len() as u64 * 2 + 2, b"NtFs")?;
        let at = object + self.offsets.need("_FILE_OBJECT.FileName")?;
        self.string(KERNEL, self.pointer(), at, text, name)?;
        Ok(object)
    }

    /// A section of a file, given by its path with the drive.
    pub(crate) fn section(
        &mut self,
        soft: Soft,
        page_files: &mut PageFiles,
        path: &str,
        image: bool,
        pages: &[PagePlan],
    ) -> Result<SectionObject, Error> {
        let width = self.pointer();
        let file = path.get(2..).unwrap_or_default().to_owned();
        let file_object = self.file_object(&file)?;
        // A control area is followed by its subsections.
        let control_size = 16 * width;
        let control = self.pool(Pool::NonPaged, control_size + 7 * width, b"MmCa")?;
        let subsection = control + control_size;
        let segment = self.pool(Pool::Paged, 10 * width, b"MmSt")?;
        let size = self.paging.entry();
        let entries = self.pool(Pool::Paged, size * pages.len() as u64, b"MmSt")?;

        self.put_pointer(control, segment)?;
        let flags = if image { 0xa0 } else { 0x80 };
        self.put(KERNEL, control + if width == 8 { 0x38 } else { 0x1c }, 4, flags)?;
        // The low bits of the pointer count references.
        let counted = file_object | if width == 8 { self.rng.u64(0..16) } else { self.rng.u64(0..8) };
        self.pointer_field(control, "_CONTROL_AREA.FilePointer", counted)?;
        self.put_pointer(segment, control)?;
        self.put(KERNEL, segment + width, 4, pages.len() as u64)?;
        self.put_pointer(segment + 8 * width, entries)?;
        self.pointer_field(subsection, "_SUBSECTION.ControlArea", control)?;
        self.put_pointer(subsection + width, entries)?;

        let mut built = Vec::new();
        for (plan, entry) in pages.iter().zip((entries..).step_by(size as usize)) {
            let (raw, frame) = match plan.state {
                PageState::Valid | PageState::Transition => {
                    let frame = self.memory.frame(&mut self.rng)?;
                    self.memory.write(frame * crate::physical::PAGE, &plan.bytes);
                    let rights =
                        Rights { user: false, write: plan.protection & 4 != 0, execute: plan.protection & 2 != 0 };
                    let raw = if plan.state == PageState::Valid {
                        self.paging.leaf(frame, rights)
                    } else {
                        soft.transition(frame, plan.protection)
                    };
                    (raw, Some(frame))
                }
                PageState::DemandZero => (soft.demand_zero(plan.protection), None),
                PageState::PageFile { file, page } => {
                    page_files.put(file, page, &plan.bytes);
                    (soft.page_file(file, page, plan.protection), None)
                }
                PageState::File => (soft.in_file(subsection, plan.protection), None),
            };
            self.put(KERNEL, entry, size, raw)?;
            built.push(SectionPage { state: plan.state, entry, frame });
        }
        let last_entry = entries + size * (pages.len() as u64).saturating_sub(1);
        Ok(SectionObject { subsection, first_entry: entries, last_entry, file, file_object, pages: built })
    }
}
