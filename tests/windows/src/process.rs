//! Processes as the kernel sees them: EPROCESS, session, token, handles, threads.
//!
//! Owns: an EPROCESS and what hangs on it. Must not know: what user mode has in its memory (`program` does).
//! Keeps: a field that builds do not have is not written.
//! Source: `_EPROCESS`, `_KPROCESS` in public symbols.

use crate::{
    Error,
    builder::Builder,
    description::{Account, ProcessDescription},
    machine::{KERNEL, SpaceId},
    object::{Entries, Kind},
    pool::Pool,
    program::Program,
    section::VOLUME,
    thread::ThreadPlan,
    truth::{Handle, Process, Thread, Token},
    user::UserSpace,
};

/// Status of a process that runs.
const RUNS: u32 = 0x103;

/// What the kernel notes of a process, whatever runs in it.
struct Basics<'a> {
    pid: u32,
    parent: u32,
    name: &'a str,
    device_path: String,
    session: Option<u32>,
    account: Account,
}

impl Builder<'_> {
    /// A process of the kernel alone: System, Registry.
    pub(crate) fn kernel_process(
        &mut self,
        pid: u32,
        parent: u32,
        name: &str,
        space: SpaceId,
        threads: u32,
    ) -> Result<Process, Error> {
        let basics = Basics { pid, parent, name, device_path: String::new(), session: None, account: Account::System };
        let mut process = self.basics(space, &basics)?;
        let at = process.eprocess;
        process.object_table = self.machine.handle_table((at, pid), &Entries::new())?;
        self.machine.pointer_field(at, "_EPROCESS.ObjectTable", process.object_table)?;
        let mut user = UserSpace::new(space, 0x1_0000, self.soft, 0, 0);
        if self.machine.pointer() == 4 && space == KERNEL {
            // The first directory of a 32-bit system always leads somewhere.
            user.private(&mut self.machine, 0x1_0000, b"low memory", 4)?;
        }
        let address = self.shared_data.1.user_address;
        user.shared_page(&mut self.machine, address, self.shared_data.0)?;
        for _ in 0..threads {
            let start = self.kernel.base + u64::from(self.kernel.pe.entry);
            let plan = ThreadPlan {
                process: process.eprocess,
                pid,
                tid: self.next_id(),
                teb: 0,
                start,
                win32_start: start,
                create_time: process.create_time,
                user_ip: 0,
                user_sp: 0,
            };
            process.threads.push(self.machine.thread(plan)?);
        }
        self.machine.link_threads(process.eprocess, &process.threads)?;
        self.finish(&mut process, user)?;
        Ok(process)
    }

    /// A process as it is described.
    pub(crate) fn process(&mut self, description: &ProcessDescription) -> Result<Process, Error> {
        let shadow = self.shadow && !privileged(description.account) && !description.ended;
        let space = self.machine.space(shadow)?;
        let basics = Basics {
            pid: description.pid,
            parent: description.parent,
            name: description.name(),
            device_path: format!("{VOLUME}{}", description.path.get(2..).unwrap_or_default()),
            session: description.session,
            account: description.account,
        };
        let mut process = self.basics(space, &basics)?;
        process.listed = !description.hidden;
        process.path.clone_from(&description.path);
        if description.ended {
            self.machine.link_threads(process.eprocess, &[])?;
            let at = process.eprocess;
            let end = process.create_time + self.machine.rng.u64(10_000_000..100_000_000);
            process.exit_time = Some(end);
            process.exit_status = self.machine.rng.u32(0..3);
            self.machine.field(at, "_EPROCESS.ExitTime", 8, end)?;
            self.machine.field(at, "_EPROCESS.ExitStatus", 4, u64::from(process.exit_status))?;
            self.machine.field(at, "_EPROCESS.Flags", 4, 0x144d_0c0d)?;
            process.narrow = description.wow64 || self.machine.pointer() == 4;
            return Ok(process);
        }
        let program: Program = self.program(space, description, &process)?;
        for thread in &program.threads {
            let mut plan = *thread;
            plan.process = process.eprocess;
            process.threads.push(self.machine.thread(plan)?);
        }
        self.machine.link_threads(process.eprocess, &process.threads)?;
        let at = process.eprocess;
        self.machine.pointer_field(at, "_EPROCESS.Peb", program.peb)?;
        self.machine.pointer_field(at, "_EPROCESS.SectionBaseAddress", program.image_base)?;
        if let Some(peb32) = program.peb32 {
            let value = if self.machine.offsets.get("_EWOW64PROCESS.Peb").is_some() {
                let wow64 = self.machine.pool(Pool::NonPaged, 0x20, b"Wow6")?;
                self.machine.pointer_field(wow64, "_EWOW64PROCESS.Peb", peb32)?;
                // The machine that it runs the code of.
                self.machine.put(KERNEL, wow64 + 8, 2, 0x14c)?;
                wow64
            } else {
                peb32
            };
            self.machine.pointer_field(at, "_EPROCESS.WoW64Process", value)?;
            self.machine.pointer_field(at, "_EPROCESS.Wow64Process", value)?;
        }
        process.peb = program.peb;
        process.peb32 = program.peb32;
        process.narrow = description.wow64 || self.machine.pointer() == 4;
        process.section_base = program.image_base;
        process.command_line = crate::peb::command_line(description);
        process.current_directory.clone_from(&description.current_directory);
        process.environment.clone_from(&description.environment);
        process.modules = program.modules;
        process.modules32 = program.modules32;
        let (table, handles) = self.handles(&process, program.file_object)?;
        self.machine.pointer_field(at, "_EPROCESS.ObjectTable", table)?;
        process.object_table = table;
        process.handles = handles;
        self.finish(&mut process, program.user)?;
        Ok(process)
    }

    /// Puts the regions of a process into its tree.
    fn finish(&mut self, process: &mut Process, mut user: UserSpace) -> Result<(), Error> {
        user.vads.sort_by_key(|vad| vad.start);
        user.pages.sort_by_key(|page| page.address);
        process.vads = self.machine.vads(process.eprocess, &user.vads)?;
        process.pages = user.pages;
        Ok(())
    }

    fn basics(&mut self, space: SpaceId, basics: &Basics<'_>) -> Result<Process, Error> {
        let session = basics.session;
        let token: Token = self.machine.token(basics.account, session.unwrap_or(0))?;
        let session_object = session.map(|id| self.session(id)).transpose()?;
        let machine = &mut self.machine;
        let width = machine.pointer();
        let size = machine.offsets.need("sizeof(_EPROCESS)")?;
        let at = machine.object(Kind::Process, Pool::NonPaged, size)?;
        // A dispatcher header of the type "process".
        machine.put(KERNEL, at, 1, 3)?;
        machine.link(KERNEL, width, at + 8, &[])?;
        machine.link(KERNEL, width, at + 8 + 2 * width, &[])?;

        let pcid = self.shadow && self.description.pcid;
        let dtb = machine.of(space).root | if pcid { 2 } else { 0 };
        let user_dtb = match machine.of(space).shadow {
            Some(shadow) => shadow | u64::from(pcid),
            None if self.shadow => 1,
            None => 0,
        };
        machine.pointer_field(at, "_KPROCESS.DirectoryTableBase", dtb)?;
        machine.pointer_field(at, "_KPROCESS.UserDirectoryTableBase", user_dtb)?;
        let user_dtb = machine.offsets.get("_KPROCESS.UserDirectoryTableBase").map(|_| user_dtb);
        machine.pointer_field(at, "_EPROCESS.UniqueProcessId", u64::from(basics.pid))?;
        machine.pointer_field(at, "_EPROCESS.InheritedFromUniqueProcessId", u64::from(basics.parent))?;
        let short_name: String = basics.name.chars().take(14).collect();
        let name_at = at + machine.offsets.need("_EPROCESS.ImageFileName")?;
        machine.write(KERNEL, name_at, short_name.as_bytes())?;

        // A counted string and its characters, in one piece.
        let text_size = basics.device_path.len() as u64 * 2 + 2;
        let audit = machine.pool(Pool::Paged, 2 * width + text_size, b"SeOp")?;
        if !basics.device_path.is_empty() {
            machine.string(KERNEL, width, audit, audit + 2 * width, &basics.device_path)?;
        }
        machine.pointer_field(at, "_EPROCESS.SeAuditProcessCreationInfo", audit)?;

        // The low bits of the pointer count references.
        let counted = token.address | machine.rng.u64(0..2 * width);
        machine.pointer_field(at, "_EPROCESS.Token", counted)?;
        machine.pointer_field(at, "_EPROCESS.Session", session_object.unwrap_or(0))?;
        machine.field(at, "_EPROCESS.CreateTime", 8, self.time)?;
        machine.field(at, "_EPROCESS.ExitStatus", 4, u64::from(RUNS))?;
        machine.field(at, "_EPROCESS.Flags2", 4, 0x0000_d000)?;
        machine.field(at, "_EPROCESS.Flags", 4, 0x144d_0c01)?;
        let create_time = self.time;
        self.time += self.machine.rng.u64(1_000_000..50_000_000);
        Ok(Process {
            eprocess: at,
            pid: basics.pid,
            parent: basics.parent,
            short_name,
            device_path: basics.device_path.clone(),
            path: String::new(),
            command_line: String::new(),
            current_directory: String::new(),
            environment: Vec::new(),
            session,
            create_time,
            exit_time: None,
            exit_status: RUNS,
            dtb,
            user_dtb,
            peb: 0,
            peb32: None,
            narrow: self.machine.pointer() == 4,
            section_base: 0,
            token,
            object_table: 0,
            handles: Vec::new(),
            listed: true,
            in_cid_table: true,
            threads: Vec::new(),
            modules: Vec::new(),
            modules32: Vec::new(),
            vads: Vec::new(),
            pages: Vec::new(),
        })
    }

    /// What a session is known by: one structure for all of its processes.
    fn session(&mut self, id: u32) -> Result<u64, Error> {
        if let Some(at) = self.sessions.get(&id) {
            return Ok(*at);
        }
        let at = self.machine.system_pages(1)?;
        self.machine.map(KERNEL, at, crate::tables::Rights::KERNEL)?;
        self.machine.put(KERNEL, at, 4, 9)?;
        self.machine.put(KERNEL, at + 8, 4, u64::from(id))?;
        self.sessions.insert(id, at);
        Ok(at)
    }

    /// A table of handles to the program's file, to the process, and to its threads.
    fn handles(&mut self, process: &Process, file: u64) -> Result<(u64, Vec<Handle>), Error> {
        let threads = process.threads.iter().map(|thread: &Thread| (Kind::Thread, thread.ethread, 0x1f_ffff));
        let objects: Vec<_> = [(Kind::File, file, 0x12_00a9), (Kind::Process, process.eprocess, 0x1f_ffff)]
            .into_iter()
            .chain(threads)
            .map(|(kind, object, access)| (kind, object, access, None))
            .chain(self.events.iter().map(|(name, object)| (Kind::Event, *object, 0x1f_0003, Some(name.clone()))))
            .collect();
        let header = self.machine.offsets.need("_OBJECT_HEADER.Body")?;
        let (mut entries, mut handles) = (Entries::new(), Vec::new());
        let mut index = 0;
        for (kind, object, access, name) in objects {
            index += self.machine.rng.u64(1..4);
            entries.insert(index, self.machine.handle_entry(object - header, access));
            handles.push(Handle { value: index as u32 * 4, object, kind: kind.name().to_owned(), access, name });
        }
        let table = self.machine.handle_table((process.eprocess, process.pid), &entries)?;
        Ok((table, handles))
    }
}

/// Processes that may see the kernel anyway have no tables of their own for user mode.
fn privileged(account: Account) -> bool {
    matches!(account, Account::System | Account::Administrator)
}
