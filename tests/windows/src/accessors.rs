//! Machine code of the small functions that give fields of processes and threads to drivers.
//!
//! Owns: their names and their instructions. Must not know: where they lie.
//! Keeps: the instructions are those that Microsoft's compiler makes for a function that returns one field.
//! Source: Intel SDM volume 2 for encodings; which field a function returns follows from its documentation.

use crate::offsets::Offsets;

/// What a function does with a field of the structure that it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// Returns it: a pointer.
    Pointer,
    /// Returns it: 32 bits.
    Word,
    /// Returns its address.
    Address,
    /// Returns it: 64 bits, on 32-bit systems in two registers.
    Long,
    /// Returns what the pointer in it points to, if it is not zero.
    Behind,
    /// Returns the number 8 bytes behind where it points to, or -1.
    Session,
}

/// Functions of one argument: name, names that the field has, further distance in pointers, form.
const ONE: &[(&str, &[&str], u64, Form)] = &[
    ("PsGetProcessId", &["_EPROCESS.UniqueProcessId"], 0, Form::Pointer),
    ("PsGetProcessInheritedFromUniqueProcessId", &["_EPROCESS.InheritedFromUniqueProcessId"], 0, Form::Pointer),
    ("PsGetProcessPeb", &["_EPROCESS.Peb"], 0, Form::Pointer),
    ("PsGetProcessSectionBaseAddress", &["_EPROCESS.SectionBaseAddress"], 0, Form::Pointer),
    ("PsGetProcessImageFileName", &["_EPROCESS.ImageFileName"], 0, Form::Address),
    ("PsGetProcessExitStatus", &["_EPROCESS.ExitStatus"], 0, Form::Word),
    ("PsGetProcessCreateTimeQuadPart", &["_EPROCESS.CreateTime"], 0, Form::Long),
    ("PsGetProcessSessionId", &["_EPROCESS.Session"], 0, Form::Session),
    ("PsGetProcessSessionIdEx", &["_EPROCESS.Session"], 0, Form::Session),
    ("PsGetThreadId", &["_ETHREAD.Cid"], 1, Form::Pointer),
    ("PsGetThreadProcessId", &["_ETHREAD.Cid"], 0, Form::Pointer),
    ("PsGetThreadProcess", &["_KTHREAD.Process"], 0, Form::Pointer),
    ("PsGetThreadTeb", &["_KTHREAD.Teb"], 0, Form::Pointer),
];

/// Functions about what runs now: name, fields from the current thread on, each a pointer but for the last.
const CURRENT: &[(&str, &[(&str, u64)])] = &[
    ("PsGetCurrentThread", &[]),
    ("KeGetCurrentThread", &[]),
    ("PsGetCurrentProcess", &[("_KTHREAD.ApcState", 4)]),
    ("IoGetCurrentProcess", &[("_KTHREAD.ApcState", 4)]),
    ("PsGetCurrentProcessId", &[("_ETHREAD.Cid", 0)]),
    ("PsGetCurrentThreadId", &[("_ETHREAD.Cid", 1)]),
    ("PsGetCurrentThreadTeb", &[("_KTHREAD.Teb", 0)]),
    ("PsGetCurrentThreadProcess", &[("_KTHREAD.Process", 0)]),
    ("PsGetCurrentThreadStackBase", &[("_KTHREAD.StackBase", 0)]),
    ("PsGetCurrentThreadStackLimit", &[("_KTHREAD.StackLimit", 0)]),
    ("PsGetProcessExitTime", &[("_KTHREAD.ApcState", 4), ("_EPROCESS.ExitTime", 0)]),
];

/// All functions that the build has fields for.
pub(crate) fn functions(offsets: &Offsets) -> Vec<(String, Vec<u8>)> {
    let width = if offsets.wide { 8 } else { 4 };
    let mut functions = Vec::new();
    for (name, fields, further, form) in ONE {
        if let Some(offset) = offsets.first(fields) {
            let offset = offset + further * width;
            let code = if offsets.wide { wide(*form, offset) } else { narrow(*form, offset) };
            functions.push(((*name).to_owned(), code));
        }
    }
    if let Some(offset) = offsets.first(&["_EPROCESS.WoW64Process", "_EPROCESS.Wow64Process"]) {
        let form = if offsets.get("_EWOW64PROCESS.Peb").is_some() { Form::Behind } else { Form::Pointer };
        functions.push(("PsGetProcessWow64Process".to_owned(), wide(form, offset)));
    }
    for (name, fields) in CURRENT {
        let fields: Option<Vec<u64>> =
            fields.iter().map(|(field, further)| Some(offsets.get(field)? + further * width)).collect();
        if let Some((fields, (prcb, thread))) =
            fields.zip(offsets.get("_KPCR.Prcb").zip(offsets.get("_KPRCB.CurrentThread")))
        {
            functions.push(((*name).to_owned(), current(offsets.wide, (prcb + thread) as u32, &fields)));
        }
    }
    if let Some(token) = offsets.get("_EPROCESS.Token").filter(|_| offsets.wide) {
        functions.push(("PsReferencePrimaryToken".to_owned(), reference_token(token)));
    }
    functions
}

/// An operand: register plus distance, with the distance in one byte where it fits.
fn operand(opcode: &[u8], register: u8, base: u8, distance: u64) -> Vec<u8> {
    let mut code = opcode.to_vec();
    if distance < 0x80 {
        code.extend([0x40 | register << 3 | base, distance as u8]);
    } else {
        code.push(0x80 | register << 3 | base);
        code.extend((distance as u32).to_le_bytes());
    }
    code
}

const MOV_64: &[u8] = &[0x48, 0x8b];
const MOV_32: &[u8] = &[0x8b];
const RET: u8 = 0xc3;
const RCX: u8 = 1;

fn wide(form: Form, offset: u64) -> Vec<u8> {
    let mut code = match form {
        Form::Word => operand(MOV_32, 0, RCX, offset),
        Form::Address => operand(&[0x48, 0x8d], 0, RCX, offset),
        _ => operand(MOV_64, 0, RCX, offset),
    };
    match form {
        // test rax, rax; je to the ret; mov rax, [rax]
        Form::Behind => code.extend([0x48, 0x85, 0xc0, 0x74, 0x03, 0x48, 0x8b, 0x00]),
        // test rax, rax; jne; or eax, -1; ret; mov eax, [rax+8]
        Form::Session => code.extend([0x48, 0x85, 0xc0, 0x75, 0x04, 0x83, 0xc8, 0xff, RET, 0x8b, 0x40, 0x08]),
        _ => {}
    }
    code.push(RET);
    code
}

fn narrow(form: Form, offset: u64) -> Vec<u8> {
    // mov edi, edi; push ebp; mov ebp, esp; mov eax, [ebp+8]
    let mut code = vec![0x8b, 0xff, 0x55, 0x8b, 0xec, 0x8b, 0x45, 0x08];
    match form {
        // add eax, offset
        Form::Address if offset < 0x80 => code.extend([0x83, 0xc0, offset as u8]),
        Form::Address => code.extend([&[0x05_u8] as &[u8], &(offset as u32).to_le_bytes()].concat()),
        Form::Long => {
            // mov ecx, [ebp+8] in place of eax; then both halves.
            code[6] = 0x4d;
            code.extend(operand(MOV_32, 0, RCX, offset));
            code.extend(operand(MOV_32, 2, RCX, offset + 4));
        }
        _ => code.extend(operand(MOV_32, 0, 0, offset)),
    }
    if form == Form::Session {
        // test eax, eax; jne; or eax, -1; jmp; mov eax, [eax+8]
        code.extend([0x85, 0xc0, 0x75, 0x05, 0x83, 0xc8, 0xff, 0xeb, 0x03, 0x8b, 0x40, 0x08]);
    }
    // pop ebp; ret 4
    code.extend([0x5d, 0xc2, 0x04, 0x00]);
    code
}

fn current(wide: bool, thread: u32, fields: &[u64]) -> Vec<u8> {
    // mov rax, gs:[thread], or mov eax, fs:[thread]
    let mut code = if wide { vec![0x65, 0x48, 0x8b, 0x04, 0x25] } else { vec![0x64, 0xa1] };
    code.extend(thread.to_le_bytes());
    for field in fields {
        code.extend(operand(if wide { MOV_64 } else { MOV_32 }, 0, 0, *field));
    }
    code.push(RET);
    code
}

/// The begin of a function that takes a reference on a token: the field's address goes to another function.
fn reference_token(token: u64) -> Vec<u8> {
    // mov [rsp+8], rbx; push rdi; sub rsp, 20h
    let mut code = vec![0x48, 0x89, 0x5c, 0x24, 0x08, 0x57, 0x48, 0x83, 0xec, 0x20];
    // lea rdi, [rcx+token]
    code.extend(operand(&[0x48, 0x8d], 7, RCX, token));
    // mov rbx, rcx; mov rcx, rdi; xor eax, eax; mov rbx, [rsp+30h]; add rsp, 20h; pop rdi; ret
    code.extend([0x48, 0x8b, 0xd9, 0x48, 0x8b, 0xcf, 0x33, 0xc0, 0x48, 0x8b, 0x5c, 0x24, 0x30]);
    code.extend([0x48, 0x83, 0xc4, 0x20, 0x5f, RET]);
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{narrow as tables, offsets::OffsetTable};

    fn code(offsets: &Offsets, name: &str) -> Vec<u8> {
        functions(offsets).into_iter().find(|function| function.0 == name).unwrap().1
    }

    #[test]
    fn code_is_what_the_compiler_writes() {
        let table = OffsetTable::embedded().unwrap();
        let ten = table.build("10.0.19041").unwrap();
        assert_eq!(code(ten, "PsGetProcessId"), [0x48, 0x8b, 0x81, 0x40, 4, 0, 0, 0xc3]);
        assert_eq!(code(ten, "PsGetProcessImageFileName"), [0x48, 0x8d, 0x81, 0xa8, 5, 0, 0, 0xc3]);
        assert_eq!(code(ten, "PsGetProcessExitStatus"), [0x8b, 0x81, 0xd4, 7, 0, 0, 0xc3]);
        let seven = table.build("6.1.7601").unwrap();
        assert_eq!(
            code(seven, "PsGetCurrentProcess"),
            [0x65, 0x48, 0x8b, 4, 0x25, 0x88, 1, 0, 0, 0x48, 0x8b, 0x40, 0x70, 0xc3]
        );
        assert_eq!(
            code(&tables::windows_7_x86(), "PsGetProcessPeb"),
            [0x8b, 0xff, 0x55, 0x8b, 0xec, 0x8b, 0x45, 8, 0x8b, 0x80, 0xa8, 1, 0, 0, 0x5d, 0xc2, 4, 0]
        );
    }
}
