//! Offsets from the code of exported functions that do nothing but return a member of their argument.
//!
//! Owns: which function returns which member, and what counts as such a function. Must not know: how code got into memory.
//! Keeps: the code is followed as long as it only moves its argument and loads from it; anything else, and nothing is learnt.
//! Source: the functions as documented for drivers (`PsGetProcessId`) or known from their names; calling conventions of Windows on x64
//! (first argument in RCX) and x86 (stdcall: on the stack).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use memflow_core::{MemoryView, MemoryViewExt};

use super::Layout;
use crate::pe::Exports;

/// Bytes of a function that are read.
const CODE: usize = 48;
/// Instructions that are followed.
const STEPS: usize = 10;
/// No member of a process or a thread lies behind this.
const MAX_OFFSET: u64 = 0x2000;

/// Functions, and what they return.
const FUNCTIONS: [(&str, Returns, &str); 14] = [
    ("PsGetProcessId", Returns::Member, "_EPROCESS.UniqueProcessId"),
    ("PsGetProcessImageFileName", Returns::Address, "_EPROCESS.ImageFileName"),
    ("PsGetProcessInheritedFromUniqueProcessId", Returns::Member, "_EPROCESS.InheritedFromUniqueProcessId"),
    ("PsGetProcessPeb", Returns::Member, "_EPROCESS.Peb"),
    ("PsGetProcessSectionBaseAddress", Returns::Member, "_EPROCESS.SectionBaseAddress"),
    ("PsGetProcessExitStatus", Returns::Member, "_EPROCESS.ExitStatus"),
    ("PsGetProcessCreateTimeQuadPart", Returns::Member, "_EPROCESS.CreateTime"),
    ("PsGetProcessWow64Process", Returns::Member, "_EPROCESS.WoW64Process"),
    ("PsGetProcessDebugPort", Returns::Member, "_EPROCESS.DebugPort"),
    ("PsGetProcessJob", Returns::Member, "_EPROCESS.Job"),
    ("PsGetThreadId", Returns::Member, "_ETHREAD.Cid.UniqueThread"),
    ("PsGetThreadProcessId", Returns::Member, "_ETHREAD.Cid"),
    ("PsGetThreadTeb", Returns::Member, "_KTHREAD.Teb"),
    ("PsGetThreadProcess", Returns::Member, "_KTHREAD.Process"),
];

/// What a function returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Returns {
    /// The value of a member of its argument.
    Member,
    /// The address of a member of its argument.
    Address,
}

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holds {
    Argument,
    Result(Returns, u64),
}

/// Adds what the kernel's exported functions tell.
pub(crate) fn accessors(view: &dyn MemoryView, exports: &Exports, layout: &mut Layout) {
    let bits = if view.metadata().pointer_size == 8 { 64 } else { 32 };
    for (function, returns, member) in FUNCTIONS {
        let Some(at) = exports.address_of(function) else { continue };
        let mut code = [0; CODE];
        // What lies behind a page that is not there is decoded as zeros, which ends the function.
        if view.read_partial(at, &mut code).is_err() {
            continue;
        }
        match returned(&code, bits) {
            Some((found, offset)) if found == returns && offset < MAX_OFFSET => {
                layout.add(member, offset, "code of exported functions");
            }
            other => log::debug!("{function} at {at}: {other:?}"),
        }
    }
}

/// What a function returns, if it is a member of its only argument.
fn returned(code: &[u8], bits: u32) -> Option<(Returns, u64)> {
    let mut decoder = Decoder::with_ip(bits, code, 0, DecoderOptions::NONE);
    let mut known: Vec<(Register, Holds)> = Vec::new();
    if bits == 64 {
        known.push((Register::RCX, Holds::Argument));
    }
    let mut instruction = Instruction::default();
    // Distance from the stack pointer to the return address, in bytes.
    let mut pushed = 0u64;
    let mut frame = None;
    for _ in 0..STEPS {
        if !decoder.can_decode() {
            return None;
        }
        decoder.decode_out(&mut instruction);
        match instruction.mnemonic() {
            Mnemonic::Ret => {
                let result = known.iter().find(|(register, _)| *register == Register::RAX)?;
                return match result.1 {
                    Holds::Result(returns, offset) => Some((returns, offset)),
                    Holds::Argument => None,
                };
            }
            Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Int3 => {}
            Mnemonic::Push if bits == 32 => pushed = pushed.checked_add(4)?,
            Mnemonic::Pop if bits == 32 => pushed = pushed.checked_sub(4)?,
            Mnemonic::Mov | Mnemonic::Lea if instruction.op0_kind() == OpKind::Register => {
                let target = instruction.op0_register().full_register();
                let holds = match instruction.op1_kind() {
                    OpKind::Register => {
                        let source = instruction.op1_register().full_register();
                        if bits == 32 && source == Register::RSP && target == Register::RBP {
                            frame = Some(pushed);
                            continue;
                        }
                        known.iter().find(|(register, _)| *register == source).map(|(_, holds)| *holds)
                    }
                    OpKind::Memory => loaded(&instruction, &known, pushed, frame),
                    _ => None,
                };
                known.retain(|(register, _)| *register != target);
                known.extend(holds.map(|holds| (target, holds)));
            }
            _ => return None,
        }
    }
    None
}

/// What an instruction loads from memory, or the address that it works out.
fn loaded(instruction: &Instruction, known: &[(Register, Holds)], pushed: u64, frame: Option<u64>) -> Option<Holds> {
    if instruction.memory_index() != Register::None || instruction.segment_prefix() != Register::None {
        return None;
    }
    let base = instruction.memory_base().full_register();
    let offset = instruction.memory_displacement64();
    let is_load = instruction.mnemonic() == Mnemonic::Mov;
    // The first argument of 32-bit code lies behind the return address.
    let depth = match base {
        Register::RSP if is_load => Some(pushed),
        Register::RBP if is_load => frame,
        _ => None,
    };
    if let Some(depth) = depth {
        return (offset == depth.checked_add(4)?).then_some(Holds::Argument);
    }
    let from = known.iter().find(|(register, _)| *register == base).map(|(_, holds)| *holds)?;
    let returns = if is_load { Returns::Member } else { Returns::Address };
    (from == Holds::Argument).then_some(Holds::Result(returns, offset))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[test]
    fn member_and_address_are_told_apart() {
        // mov rax, [rcx+0x2e0]; ret
        assert_eq!(returned(b"\x48\x8b\x81\xe0\x02\0\0\xc3", 64), Some((Returns::Member, 0x2e0)));
        // lea rax, [rcx+0x450]; ret
        assert_eq!(returned(b"\x48\x8d\x81\x50\x04\0\0\xc3", 64), Some((Returns::Address, 0x450)));
        // mov eax, [rcx+0x624]; ret
        assert_eq!(returned(b"\x8b\x81\x24\x06\0\0\xc3", 64), Some((Returns::Member, 0x624)));
        // mov rax, rcx; mov rax, [rax+0x10]; ret
        assert_eq!(returned(b"\x48\x89\xc8\x48\x8b\x40\x10\xc3", 64), Some((Returns::Member, 0x10)));
    }

    #[test]
    fn argument_on_the_stack_is_found_with_and_without_a_frame() {
        // mov edi, edi; push ebp; mov ebp, esp; mov eax, [ebp+8]; mov eax, [eax+0xb4]; pop ebp; ret 4
        let framed = b"\x8b\xff\x55\x8b\xec\x8b\x45\x08\x8b\x80\xb4\0\0\0\x5d\xc2\x04\0";
        assert_eq!(returned(framed, 32), Some((Returns::Member, 0xb4)));
        // mov eax, [esp+4]; add eax, 0x16c: not followed
        assert_eq!(returned(b"\x8b\x44\x24\x04\x05\x6c\x01\0\0\xc2\x04\0", 32), None);
        // mov eax, [esp+4]; lea eax, [eax+0x16c]; ret 4
        assert_eq!(returned(b"\x8b\x44\x24\x04\x8d\x80\x6c\x01\0\0\xc2\x04\0", 32), Some((Returns::Address, 0x16c)));
    }

    #[test]
    fn code_that_does_more_tells_nothing() {
        // mov rax, gs:[0x188]; ret
        assert_eq!(returned(b"\x65\x48\x8b\x04\x25\x88\x01\0\0\xc3", 64), None);
        // mov rax, [rcx+rdx*8+0x10]; ret
        assert_eq!(returned(b"\x48\x8b\x44\xd1\x10\xc3", 64), None);
        // mov rax, [rcx+8]; mov rax, [rax+8]; ret: a member of a member
        assert_eq!(returned(b"\x48\x8b\x41\x08\x48\x8b\x40\x08\xc3", 64), None);
        for code in [&b""[..], &[0; 48], &[0xff; 48], &[0x90; 48], b"\xc3", b"\xe9\0\0\0\0"] {
            assert_eq!(returned(code, 64), None);
            assert_eq!(returned(code, 32), None);
        }
    }
}
