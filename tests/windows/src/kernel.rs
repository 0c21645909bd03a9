//! The kernel's image: sections, exports, code of small functions, variables where the build has them.
//!
//! Owns: the image and where it is mapped. Must not know: what the variables will say.
//! Keeps: variables that the table knows lie where the table says; all others have a section of their own.

use std::collections::BTreeMap;

use crate::{
    Error,
    accessors::functions,
    description::{Description, Exports},
    machine::{KERNEL, Machine},
    pe::{CodeView, Pe, Use},
    physical::PAGE,
    resource::texts,
    soft::Soft,
    tables::Rights,
};

/// The least size of an image, so that it is in the range of real ones.
const LEAST: u32 = 0x48_0000;
/// Variables that the table does not know, and their sizes.
const VARIABLES: &[(&str, u32)] = &[
    ("KdpDataBlockEncoded", 8),
    ("KdpDebuggerDataListHead", 16),
    ("KiWaitNever", 8),
    ("KiWaitAlways", 8),
    ("KeNumberProcessors", 8),
    ("MmHighestUserAddress", 8),
    ("MmSystemRangeStart", 8),
    ("MmUserProbeAddress", 8),
    ("PsProcessType", 8),
    ("PsThreadType", 8),
    ("KeServiceDescriptorTable", 0x40),
    ("KiServiceTable", 0x100),
    ("InitSafeBootMode", 8),
    ("KdDebuggerEnabled", 8),
    ("NtBuildLab", 0x80),
    ("CmpHiveListHead", 0x10),
];
/// Variables that drivers may use by name.
const EXPORTED: &[&str] = &[
    "InitSafeBootMode",
    "KdDebuggerEnabled",
    "KeNumberProcessors",
    "MmHighestUserAddress",
    "MmSystemRangeStart",
    "MmUserProbeAddress",
    "NtBuildLab",
    "NtBuildNumber",
    "PsInitialSystemProcess",
    "PsLoadedModuleList",
    "PsProcessType",
    "PsThreadType",
];
/// Functions whose code is of no interest.
const OTHERS: &[&str] = &[
    "ExAllocatePoolWithTag",
    "IoCreateDevice",
    "IofCompleteRequest",
    "KeBugCheckEx",
    "KeStackAttachProcess",
    "MmGetPhysicalAddress",
    "MmMapIoSpace",
    "ObfDereferenceObject",
    "PsLookupProcessByProcessId",
    "RtlGetVersion",
    "ZwClose",
];

/// The image, and addresses of what is in it.
#[derive(Debug)]
pub(crate) struct KernelImage {
    pub(crate) base: u64,
    pub(crate) pe: Pe,
    pub(crate) symbols: BTreeMap<String, u64>,
    pub(crate) build_lab: String,
    pub(crate) pdb: String,
    pub(crate) guid: String,
    pub(crate) texts: BTreeMap<String, String>,
    /// Frames whose bytes are not to be had.
    pub(crate) missing: Vec<u64>,
}

impl KernelImage {
    /// Address of a variable.
    pub(crate) fn symbol(&self, name: &'static str) -> Result<u64, Error> {
        self.symbols.get(name).copied().ok_or(Error::Description { what: format!("this kernel has no {name}") })
    }
}

/// Sections that cover the variables of the table: code where the entry of system calls is, data elsewhere.
fn known_sections(pe: &mut Pe, known: &[(String, u32)]) {
    let mut groups: Vec<(bool, u32)> = Vec::new();
    for (name, rva) in known.iter().filter(|(name, _)| name != "NtBuildNumber") {
        let code = matches!(name.as_str(), "KiSystemCall64" | "KiFastCallEntry");
        if groups.last().is_none_or(|last| last.0 != code) {
            groups.push((code, rva & !0xfff));
        }
    }
    let last = known.iter().map(|(_, rva)| *rva).max().unwrap_or(0);
    let end = (last + 0x2000) & !0xfff;
    let (mut codes, mut datas) = ([".text", "PAGELK"].into_iter().cycle(), [".data", "ALMOSTRO"].into_iter().cycle());
    for (index, (code, start)) in groups.iter().enumerate() {
        let start = if index == 0 { PAGE as u32 } else { *start };
        let next = groups.get(index + 1).map_or(end, |next| next.1);
        let (names, what) = if *code { (&mut codes, Use::Code) } else { (&mut datas, Use::Data) };
        pe.section(names.next().unwrap_or_default(), start, next - start, what);
    }
}

/// Builds the image and maps it at a random place.
pub(crate) fn kernel(machine: &mut Machine, description: &Description, soft: Soft) -> Result<KernelImage, Error> {
    let offsets = machine.offsets.clone();
    let mut pe = Pe::new(offsets.wide, false, machine.rng.u32(0x4a00_0000..0x6200_0000));
    let mut known: Vec<(String, u32)> =
        offsets.iter().filter_map(|(name, rva)| Some((name.strip_prefix("rva:")?.to_owned(), rva as u32))).collect();
    known.sort_by_key(|(_, rva)| *rva);
    known_sections(&mut pe, &known);

    let mut rvas: BTreeMap<String, u32> = known.into_iter().collect();
    let own = pe.next_section("CACHEALI", 0x1000, Use::Data);
    let mut next = own;
    for (name, size) in VARIABLES {
        rvas.insert((*name).to_owned(), next);
        next += size;
    }
    pe.next_section("POOLCODE", 0x2000, Use::Code);
    let missing = LEAST.saturating_sub(pe.size + 0xa000);
    let code = pe.next_section("PAGE", (missing + 0x2000).next_multiple_of(0x1000), Use::Code);
    let mut exports: Vec<(String, u32)> =
        EXPORTED.iter().filter_map(|name| Some(((*name).to_owned(), *rvas.get(*name)?))).collect();
    if !offsets.wide {
        exports.push(("KeServiceDescriptorTable".to_owned(), rvas["KeServiceDescriptorTable"]));
    }
    let mut at = code + 0x100;
    for (name, bytes) in functions(&offsets) {
        pe.write(at, &bytes);
        exports.push((name, at));
        at = (at + bytes.len() as u32 + 2).next_multiple_of(16);
    }
    for name in OTHERS {
        pe.write(at, &[0x33, 0xc0, 0xc3]);
        exports.push(((*name).to_owned(), at));
        at += 16;
    }
    if offsets.wide {
        // swapgs; mov gs:[10h], rsp; mov rsp, gs:[1a8h]
        let entry =
            [0x0f, 1, 0xf8, 0x65, 0x48, 0x89, 0x24, 0x25, 0x10, 0, 0, 0, 0x65, 0x48, 0x8b, 0x24, 0x25, 0xa8, 1, 0, 0];
        pe.write(rvas["KiSystemCall64"], &entry);
    }
    let constants = pe.next_section(".rdata", 0x1000, Use::Constants);
    let guid = description.guid.clone().unwrap_or_else(|| offsets.guid.clone()).to_uppercase();
    let pdb = if description.architecture == crate::Architecture::Pae { "ntkrpamp.pdb" } else { "ntkrnlmp.pdb" };
    pe.debug(constants, &CodeView { guid: guid.clone(), age: offsets.age, file: pdb.to_owned() });
    let directory = pe.next_section(".edata", 0x2000, Use::Constants);
    pe.export(directory, "ntoskrnl.exe", exports);
    pe.entry = pe.next_section("INIT", 0x1000, Use::Start) + 0x10;
    let resources = pe.next_section(".rsrc", 0x1000, Use::Constants);
    let texts = texts("ntkrnlmp.exe", "NT Kernel & System", offsets.version);
    pe.resources(resources, offsets.version, &texts);
    pe.next_section(".reloc", 0x1000, Use::Relocations);

    let base = place(machine, description);
    pe.headers(base, true);
    let first = map(machine, description, &pe, base)?;
    let mut image = KernelImage {
        base,
        symbols: rvas.into_iter().map(|(name, rva)| (name, base + u64::from(rva))).collect(),
        build_lab: build_lab(&offsets),
        pdb: pdb.to_owned(),
        guid,
        texts,
        missing: Vec::new(),
        pe,
    };
    if description.exports == Exports::Missing {
        for at in 0..2 {
            let rva = u64::from(directory) + at * PAGE;
            image.missing.push(first + rva / PAGE);
            if !description.large_kernel {
                let entry = soft.page_file(0, 0x4000 + at as u32, 3);
                let root = machine.of(KERNEL).root;
                machine.paging.set(&mut machine.memory, &mut machine.rng, root, base + rva, PAGE, entry)?;
            }
        }
    }
    Ok(image)
}

/// Where the image goes.
fn place(machine: &mut Machine, description: &Description) -> u64 {
    let rng = &mut machine.rng;
    let pages = |rng: &mut fastrand::Rng| rng.u64(0..0x1c0) * PAGE;
    if !description.wide() {
        // Large pages of 4 MiB have to fit around it.
        return 0x8280_0000 + pages(rng);
    }
    if description.offsets.seven() {
        return 0xffff_f800_0280_0000 + pages(rng);
    }
    let base = 0xffff_f800_0000_0000 + rng.u64(0x10..0x3f00) * (2 << 20);
    base + if rng.bool() { pages(rng) } else { 0 }
}

/// Maps the image into frames in a row, and fills them; the first frame.
fn map(machine: &mut Machine, description: &Description, pe: &Pe, base: u64) -> Result<u64, Error> {
    let large = machine.paging.large();
    let first = if description.large_kernel {
        let start = base & !(large - 1);
        let end = (base + u64::from(pe.size)).next_multiple_of(large);
        let frames = machine.memory.run((end - start) / PAGE, large / PAGE)?;
        for at in (0..end - start).step_by(large as usize) {
            let rights = Rights { user: false, write: true, execute: true };
            machine.map_large(KERNEL, start + at, large, frames + at / PAGE, rights)?;
        }
        frames + (base - start) / PAGE
    } else {
        let pages = u64::from(pe.size) / PAGE;
        let frames = machine.memory.run(pages, 1)?;
        for page in 0..pages {
            let (write, execute) = pe.rights((page * PAGE) as u32);
            machine.map_frame(KERNEL, base + page * PAGE, frames + page, Rights { user: false, write, execute })?;
        }
        frames
    };
    for (page, bytes) in &pe.pages {
        machine.memory.write((first + page) * PAGE, &bytes[..]);
    }
    Ok(first)
}

fn build_lab(offsets: &crate::Offsets) -> String {
    let platform = if offsets.wide { "amd64fre" } else { "x86fre" };
    let version = offsets.version;
    let branch = match version.build {
        7601 => "win7sp1_ldr",
        9600 => "winblue_ltsb",
        14393 => "rs1_release",
        17763 => "rs5_release",
        18326..=18362 => "19h1_release",
        19041 => "vb_release",
        _ => "co_release",
    };
    format!("{}.{}.{platform}.{branch}.210101-1200", version.build, version.revision)
}
