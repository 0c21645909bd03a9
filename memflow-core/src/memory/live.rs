//! The one place where bytes are copied that may change while they are copied.
//!
//! Owns: copies between foreign memory (a running guest's RAM, a file other processes write) and our buffers.
//! Must not know: anything else.
//! Keeps: no reference to foreign memory is ever formed; every access is volatile, or made by an instruction the compiler
//! cannot see through, so that a change underneath yields old or new bytes and nothing worse. An aligned 8-byte piece is one load.

use std::ptr;

/// Bytes that the loops of [`copy_wide`] and [`copy_past_caches`] copy at a time.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const BLOCK: usize = 64;

/// From this length on bytes that rest are copied as others are: up to here the compiler's `memcpy` is as fast.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const FROZEN_WIDE_FROM: usize = 16 << 10;

/// From this length on a copy does not go through the caches, which it would only empty.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const PAST_CACHES_FROM: usize = 8 << 20;

/// Copies `dst.len()` bytes from `src`.
///
/// # Safety
/// `src..src + dst.len()` is readable for the whole call. It may be changed by others, but not through a reference of this process.
#[inline]
pub(super) unsafe fn load(src: *const u8, dst: &mut [u8]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if dst.len() >= BLOCK {
        // SAFETY: same contract.
        return unsafe { load_blocks(src, dst) };
    }
    // SAFETY: same contract.
    unsafe { load_words(src, dst) };
}

/// Copies blocks, and what is left of them word by word.
///
/// Measured on a Zen 4 processor: `rep movsb` reaches 0.2 to 0.7 of the speed of these loops unless source and target lie alike in
/// their pages.
///
/// # Safety
/// As [`load`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn load_blocks(src: *const u8, dst: &mut [u8]) {
    let past_caches = dst.len() >= PAST_CACHES_FROM;
    let head = if past_caches { dst.as_ptr().align_offset(16).min(dst.len()) } else { 0 };
    let (head_dst, rest) = dst.split_at_mut(head);
    let (blocks, tail_dst) = rest.as_chunks_mut::<BLOCK>();
    // SAFETY: the head is inside the readable range (contract).
    unsafe { load_words(src, head_dst) };
    let from = src.wrapping_add(head);
    if past_caches {
        // SAFETY: the blocks follow the head inside the readable range (contract), and start at a multiple of 16.
        unsafe { copy_past_caches(from, blocks) };
    } else {
        // SAFETY: the blocks follow the head inside the readable range (contract).
        unsafe { copy_wide(from, blocks) };
    }
    // SAFETY: the tail follows the blocks inside the readable range (contract).
    unsafe { load_words(from.wrapping_add(blocks.len().wrapping_mul(BLOCK)), tail_dst) };
}

/// Copies blocks, 16 bytes in each access.
///
/// # Safety
/// The bytes of so many blocks are readable at `src` for the whole call.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_wide(src: *const u8, dst: &mut [[u8; BLOCK]]) {
    if dst.is_empty() {
        return;
    }
    // SAFETY:
    // - `src` is readable and `dst` writable for `dst.len()` blocks (contract; exclusive borrow), of which there is at least one;
    // - SSE2 is part of x86-64;
    // - the copy is opaque to the compiler, so bytes that change meanwhile break no assumption of it.
    unsafe {
        std::arch::asm!(
            "2:",
            "movdqu {a}, xmmword ptr [{src}]",
            "movdqu {b}, xmmword ptr [{src} + 16]",
            "movdqu {c}, xmmword ptr [{src} + 32]",
            "movdqu {d}, xmmword ptr [{src} + 48]",
            "movdqu xmmword ptr [{dst}], {a}",
            "movdqu xmmword ptr [{dst} + 16], {b}",
            "movdqu xmmword ptr [{dst} + 32], {c}",
            "movdqu xmmword ptr [{dst} + 48], {d}",
            "add {src}, 64",
            "add {dst}, 64",
            "dec {left}",
            "jne 2b",
            a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            src = inout(reg) src => _, dst = inout(reg) dst.as_mut_ptr() => _, left = inout(reg) dst.len() => _,
            options(nostack)
        );
    }
}

/// Copies blocks to memory, not to the caches.
///
/// # Safety
/// - The bytes of so many blocks are readable at `src` for the whole call;
/// - `dst` starts at a multiple of 16.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_past_caches(src: *const u8, dst: &mut [[u8; BLOCK]]) {
    if dst.is_empty() {
        return;
    }
    // SAFETY: as in `copy_wide`; the stores are to multiples of 16 (contract), and the fence orders them before whatever follows.
    unsafe {
        std::arch::asm!(
            "2:",
            "prefetchnta byte ptr [{src} + 1024]",
            "movdqu {a}, xmmword ptr [{src}]",
            "movdqu {b}, xmmword ptr [{src} + 16]",
            "movdqu {c}, xmmword ptr [{src} + 32]",
            "movdqu {d}, xmmword ptr [{src} + 48]",
            "movntdq xmmword ptr [{dst}], {a}",
            "movntdq xmmword ptr [{dst} + 16], {b}",
            "movntdq xmmword ptr [{dst} + 32], {c}",
            "movntdq xmmword ptr [{dst} + 48], {d}",
            "add {src}, 64",
            "add {dst}, 64",
            "dec {left}",
            "jne 2b",
            "sfence",
            a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            src = inout(reg) src => _, dst = inout(reg) dst.as_mut_ptr() => _, left = inout(reg) dst.len() => _,
            options(nostack)
        );
    }
}

/// Copies word by word, and single bytes where there is no whole one.
///
/// # Safety
/// As [`load`].
#[inline]
unsafe fn load_words(src: *const u8, dst: &mut [u8]) {
    if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *dst)
        && is_entry_aligned(src)
    {
        // SAFETY: eight bytes are readable (contract), and the alignment was just asked for.
        *word = unsafe { load_entry_u64(src, 0) }.to_le_bytes();
        return;
    }
    let head = src.align_offset(8).min(dst.len());
    let (head_dst, rest) = dst.split_at_mut(head);
    let (words, tail_dst) = rest.as_chunks_mut::<8>();
    for (index, byte) in head_dst.iter_mut().enumerate() {
        // SAFETY: `index` is below `dst.len()`, so the byte is readable (contract).
        *byte = unsafe { src.wrapping_add(index).read_volatile() };
    }
    let aligned = src.wrapping_add(head);
    let tail = aligned.wrapping_add(words.len().wrapping_mul(8));
    for (index, word) in words.iter_mut().enumerate() {
        let from = aligned.cast::<u64>().wrapping_add(index);
        // SAFETY: the eight bytes lie inside the readable range (contract), and `from` is 8-byte aligned: `align_offset`
        // returned fewer than 8, as `words` is not empty.
        *word = unsafe { from.read_volatile() }.to_ne_bytes();
    }
    for (index, byte) in tail_dst.iter_mut().enumerate() {
        // SAFETY: the tail follows the words inside the readable range (contract).
        *byte = unsafe { tail.wrapping_add(index).read_volatile() };
    }
}

/// Copies `src` to `dst`.
///
/// # Safety
/// `dst..dst + src.len()` is writable for the whole call, and no reference of this process points into it.
pub(super) unsafe fn store(dst: *mut u8, src: &[u8]) {
    let head = dst.align_offset(8).min(src.len());
    let (head_src, rest) = src.split_at(head);
    let (words, tail_src) = rest.as_chunks::<8>();
    for (index, byte) in head_src.iter().enumerate() {
        // SAFETY: `index` is below `src.len()`, so the byte is writable (contract).
        unsafe { dst.wrapping_add(index).write_volatile(*byte) };
    }
    let aligned = dst.wrapping_add(head);
    let tail = aligned.wrapping_add(words.len().wrapping_mul(8));
    for (index, word) in words.iter().enumerate() {
        let to = aligned.cast::<u64>().wrapping_add(index);
        // SAFETY: the eight bytes lie inside the writable range (contract) and `to` is 8-byte aligned (see `load`).
        unsafe { to.write_volatile(u64::from_ne_bytes(*word)) };
    }
    for (index, byte) in tail_src.iter().enumerate() {
        // SAFETY: the tail follows the words inside the writable range (contract).
        unsafe { tail.wrapping_add(index).write_volatile(*byte) };
    }
}

/// Loads eight bytes as a little-endian number, in one access when `src` is 8-byte aligned.
///
/// # Safety
/// `src..src + 8` is readable for the whole call.
#[inline]
pub(super) unsafe fn load_u64(src: *const u8) -> u64 {
    let word = src.cast::<u64>();
    if word.is_aligned() {
        // SAFETY: readable (contract) and aligned (just checked).
        return u64::from_le(unsafe { word.read_volatile() });
    }
    let mut bytes = [0; 8];
    // SAFETY: the contract of this function is the contract of `load`; the alternative is copied out, never referenced.
    unsafe { ptr_load(src, &mut bytes) };
    u64::from_le_bytes(bytes)
}

/// Loads four bytes as a little-endian number, in one access when `src` is 4-byte aligned.
///
/// # Safety
/// `src..src + 4` is readable for the whole call.
#[inline]
pub(super) unsafe fn load_u32(src: *const u8) -> u32 {
    let word = src.cast::<u32>();
    if word.is_aligned() {
        // SAFETY: readable (contract) and aligned (just checked).
        return u32::from_le(unsafe { word.read_volatile() });
    }
    let mut bytes = [0; 4];
    // SAFETY: the contract of this function is the contract of `load`.
    unsafe { ptr_load(src, &mut bytes) };
    u32::from_le_bytes(bytes)
}

/// Whether entries of a table at `ptr` can be loaded in one access each: on x86-64 at any address, elsewhere where they are aligned.
#[inline]
pub(super) fn is_entry_aligned(ptr: *const u8) -> bool {
    cfg!(all(target_arch = "x86_64", not(miri))) || ptr.cast::<u64>().is_aligned()
}

/// Loads the eight bytes `offset` behind `src` as a little-endian number in one access.
///
/// # Safety
/// - the eight bytes are readable for the whole call;
/// - [`is_entry_aligned`] says yes to `src`, or to a pointer that lies a multiple of eight before it; so does `offset`.
#[inline(always)]
pub(super) unsafe fn load_entry_u64(src: *const u8, offset: usize) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let value: u64;
        // SAFETY: readable (contract); the load is opaque to the compiler, so bytes that change meanwhile break no assumption of it.
        unsafe {
            std::arch::asm!("mov {value}, qword ptr [{src} + {offset}]", src = in(reg) src, offset = in(reg) offset, value = lateout(reg) value,
                options(nostack, preserves_flags, readonly));
        }
        value
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: readable and aligned (contract).
    u64::from_le(unsafe { src.wrapping_add(offset).cast::<u64>().read_volatile() })
}

/// Loads the four bytes `offset` behind `src` as a little-endian number in one access.
///
/// # Safety
/// As [`load_entry_u64`], for four bytes and multiples of four.
#[inline(always)]
pub(super) unsafe fn load_entry_u32(src: *const u8, offset: usize) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let value: u32;
        // SAFETY: as in `load_entry_u64`.
        unsafe {
            std::arch::asm!("mov {value:e}, dword ptr [{src} + {offset}]", src = in(reg) src, offset = in(reg) offset, value = lateout(reg) value,
                options(nostack, preserves_flags, readonly));
        }
        value
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: readable and aligned (contract).
    u32::from_le(unsafe { src.wrapping_add(offset).cast::<u32>().read_volatile() })
}

/// Loads eight bytes at each of four offsets behind `base` as little-endian numbers, each in one access.
///
/// # Safety
/// The eight bytes at each offset are readable for the whole call.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn load_four(base: *const u8, offsets: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m256i {
    let value;
    // SAFETY: readable (contract); the loads are opaque to the compiler, so bytes that change meanwhile break no assumption of it.
    unsafe {
        std::arch::asm!(
            "vmovq {a}, {offsets:x}",
            "vpextrq {b}, {offsets:x}, 1",
            "vextracti128 {high:x}, {offsets:y}, 1",
            "vmovq {value:x}, qword ptr [{base} + {a}]",
            "vmovq {a}, {high:x}",
            "vmovhps {value:x}, {value:x}, qword ptr [{base} + {b}]",
            "vpextrq {b}, {high:x}, 1",
            "vmovq {high:x}, qword ptr [{base} + {a}]",
            "vmovhps {high:x}, {high:x}, qword ptr [{base} + {b}]",
            "vinserti128 {value:y}, {value:y}, {high:x}, 1",
            base = in(reg) base, offsets = in(ymm_reg) offsets,
            a = out(reg) _, b = out(reg) _, high = out(ymm_reg) _, value = out(ymm_reg) value,
            options(readonly, nostack, preserves_flags)
        );
    }
    value
}

/// Asks the processor to fetch the line at `ptr`; nothing happens where there is none.
#[inline(always)]
pub(super) fn prefetch(ptr: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which faults at no address; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr.cast()) };
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: a hint, which faults at no address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{ptr}]", ptr = in(reg) ptr, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = ptr;
}

/// The out-of-line path of [`load_u64`] and [`load_u32`].
///
/// # Safety
/// As [`load`].
#[cold]
unsafe fn ptr_load(src: *const u8, dst: &mut [u8]) {
    // SAFETY: same contract.
    unsafe { load(src, dst) };
}

/// Copies bytes that nobody changes.
///
/// # Safety
/// `src..src + dst.len()` is readable and unchanged for the whole call.
#[inline]
pub(super) unsafe fn load_frozen(src: *const u8, dst: &mut [u8]) {
    // By far the most common length, and too short for the call of a function.
    if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *dst) {
        // SAFETY: eight bytes are readable and unchanged (contract).
        *word = unsafe { src.cast::<[u8; 8]>().read() };
        return;
    }
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if dst.len() >= FROZEN_WIDE_FROM {
        // SAFETY: same contract.
        return unsafe { load_blocks(src, dst) };
    }
    // SAFETY: readable and unchanged (contract); `dst` is exclusively borrowed, so the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(src, dst.as_mut_ptr(), dst.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_exactly() {
        let source: Vec<u8> = (0..600u32).map(|value| (value * 7 + 3) as u8).collect();
        for start in 0..9 {
            for len in [0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 200, 255, 256, 257, 511] {
                let mut copy = vec![0xee; len + 2];
                // SAFETY: `start + len` is below the length of `source`.
                unsafe { load(source.as_ptr().wrapping_add(start), &mut copy[1..=len]) };
                assert_eq!(&copy[1..=len], &source[start..start + len], "start {start} len {len}");
                assert_eq!((copy[0], copy[len + 1]), (0xee, 0xee));
                let mut target = vec![0xdd; 600];
                // SAFETY: `start + len` is below the length of `target`, which nothing else refers to during the call.
                unsafe { store(target.as_mut_ptr().wrapping_add(start), &source[start..start + len]) };
                assert_eq!(&target[start..start + len], &source[start..start + len]);
                assert!(target[..start].iter().chain(&target[start + len..]).all(|byte| *byte == 0xdd));
            }
        }
    }

    #[test]
    fn long_copies_are_exact_at_every_alignment() {
        let len = (8 << 20) + 200;
        let source: Vec<u8> =
            (0..len as u64 + 64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let mut copy = vec![0u8; len + 64];
        for (from, to, len) in [(0, 1, len), (5, 0, len - 1), (1, 17, 8 << 20), (3, 9, 20_000), (0, 0, 16 << 10)] {
            copy.fill(0xee);
            // SAFETY: `from + len` is at most the length of `source`, which nobody changes.
            unsafe { load_frozen(source.as_ptr().wrapping_add(from), &mut copy[to..to + len]) };
            assert!(copy[to..to + len] == source[from..from + len]);
            assert!(copy[..to].iter().chain(&copy[to + len..]).all(|byte| *byte == 0xee));
            copy.fill(0xdd);
            // SAFETY: as above.
            unsafe { load(source.as_ptr().wrapping_add(from), &mut copy[to..to + len]) };
            assert!(copy[to..to + len] == source[from..from + len]);
            assert!(copy[..to].iter().chain(&copy[to + len..]).all(|byte| *byte == 0xdd));
        }
    }

    #[test]
    fn numbers_are_little_endian_at_any_alignment() {
        let bytes: Vec<u8> = (1..=24).collect();
        for start in 0..8 {
            let at = bytes.as_ptr().wrapping_add(start);
            let eight: [u8; 8] = bytes[start..start + 8].try_into().unwrap();
            let four: [u8; 4] = bytes[start..start + 4].try_into().unwrap();
            // SAFETY: 24 bytes, at most 7 + 8 of them are read.
            assert_eq!(unsafe { load_u64(at) }, u64::from_le_bytes(eight));
            // SAFETY: as above.
            assert_eq!(unsafe { load_u32(at) }, u32::from_le_bytes(four));
        }
    }
}
