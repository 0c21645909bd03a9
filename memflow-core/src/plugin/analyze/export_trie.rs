//! The exports of a Mach-O file: a tree of names, cut at common beginnings.
//!
//! Owns: following one name through the tree. Must not know: the rest of the file.
//! Keeps: a step uses up at least one byte of the name, and all steps together read no more bytes than the tree has, so that a tree
//! with loops ends too. goblin's reader is not used: it walks all of the tree, by recursion.
//! Source: dyld, `mach-o/loader.h` at `EXPORT_SYMBOL_FLAGS_KIND_MASK` and `MachOTrie.hpp`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use goblin::mach::exports::{
    EXPORT_SYMBOL_FLAGS_KIND_MASK, EXPORT_SYMBOL_FLAGS_KIND_REGULAR, EXPORT_SYMBOL_FLAGS_KIND_THREAD_LOCAL,
    EXPORT_SYMBOL_FLAGS_REEXPORT, EXPORT_SYMBOL_FLAGS_STUB_AND_RESOLVER,
};
use scroll::{Pread, Uleb128};

/// What an exported name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Export {
    /// Something at an address, relative to the image.
    Address(u64),
    /// Something else.
    Other(&'static str),
}

/// Where the tree is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Broken {
    /// Offset in the tree.
    pub(super) at: usize,
}

/// What a name stands for; nothing if it is not exported.
pub(super) fn find(trie: &[u8], name: &[u8]) -> Result<Option<Export>, Broken> {
    let mut walk = Walk::new(trie);
    let mut rest = name;
    loop {
        let terminal = walk.terminal()?;
        if rest.is_empty() {
            return terminal.map(|info| export(info, walk.node)).transpose();
        }
        match walk.follow(|edge| rest.strip_prefix(edge).filter(|_| !edge.is_empty()))? {
            Some(left) => rest = left,
            None => return Ok(None),
        }
    }
}

/// True if the name of any export begins with this.
pub(super) fn any_begins_with(trie: &[u8], prefix: &[u8]) -> Result<bool, Broken> {
    let mut walk = Walk::new(trie);
    let mut rest = prefix;
    loop {
        walk.terminal()?;
        let step = |edge: &[u8]| match rest.strip_prefix(edge) {
            Some(left) if !edge.is_empty() => Some(left),
            _ => edge.starts_with(rest).then_some(&[][..]),
        };
        match walk.follow(step)? {
            Some([]) => return Ok(true),
            Some(left) => rest = left,
            None => return Ok(false),
        }
    }
}

/// Flags, then what they ask for.
fn export(info: &[u8], node: usize) -> Result<Export, Broken> {
    let broken = Broken { at: node };
    let flags: Uleb128 = info.pread(0).map_err(|_| broken)?;
    let (flags, after) = (u64::from(flags), flags.size());
    if flags & EXPORT_SYMBOL_FLAGS_REEXPORT != 0 {
        return Ok(Export::Other("in another library"));
    }
    if flags & EXPORT_SYMBOL_FLAGS_STUB_AND_RESOLVER != 0 {
        return Ok(Export::Other("a function"));
    }
    match flags & EXPORT_SYMBOL_FLAGS_KIND_MASK {
        EXPORT_SYMBOL_FLAGS_KIND_REGULAR => {}
        EXPORT_SYMBOL_FLAGS_KIND_THREAD_LOCAL => return Ok(Export::Other("a variable of each thread")),
        _ => return Ok(Export::Other("a number, not an address")),
    }
    let address: Uleb128 = info.pread(after).map_err(|_| broken)?;
    Ok(Export::Address(address.into()))
}

/// A place in the tree.
struct Walk<'a> {
    trie: &'a [u8],
    /// The current node.
    node: usize,
    /// The next byte of it.
    at: usize,
    /// Bytes that may still be read.
    budget: usize,
}

impl<'a> Walk<'a> {
    const fn new(trie: &'a [u8]) -> Self {
        Self { trie, node: 0, at: 0, budget: trie.len() }
    }

    /// The part of the current node about the name that ends here, if one does. The next byte is then the number of children.
    fn terminal(&mut self) -> Result<Option<&'a [u8]>, Broken> {
        let len = self.number()?;
        let info = self.bytes(len)?;
        Ok((!info.is_empty()).then_some(info))
    }

    /// Goes to the first child whose edge `take` accepts, and returns what that says.
    fn follow<T>(&mut self, take: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, Broken> {
        let [children] = *self.bytes(1)? else { return Err(self.broken()) };
        for _ in 0..children {
            let rest = self.trie.get(self.at..).unwrap_or_default();
            let len = rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.broken())?;
            let edge = self.bytes(u64::try_from(len).unwrap_or(u64::MAX))?;
            self.bytes(1)?;
            let child = self.number()?;
            if let Some(taken) = take(edge) {
                self.node = usize::try_from(child).map_err(|_| self.broken())?;
                self.at = self.node;
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    fn number(&mut self) -> Result<u64, Broken> {
        let rest = self.trie.get(self.at..).unwrap_or_default();
        let number: Uleb128 = rest.pread(0).map_err(|_| self.broken())?;
        self.bytes(u64::try_from(number.size()).unwrap_or(u64::MAX))?;
        Ok(number.into())
    }

    fn bytes(&mut self, len: u64) -> Result<&'a [u8], Broken> {
        let len = usize::try_from(len).map_err(|_| self.broken())?;
        let end = self.at.checked_add(len).ok_or_else(|| self.broken())?;
        let bytes = self.trie.get(self.at..end).ok_or_else(|| self.broken())?;
        self.budget = self.budget.checked_sub(len).ok_or_else(|| self.broken())?;
        self.at = end;
        Ok(bytes)
    }

    const fn broken(&self) -> Broken {
        Broken { at: self.node }
    }
}

#[cfg(test)]
mod tests;
