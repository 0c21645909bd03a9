//! The tree of regions of a process.
//!
//! Owns: MMVADs, their bit fields, the balanced tree in both of its layouts. Must not know: what is in a region.
//! Keeps: the tree is what an AVL tree may be: no two sides differ by more than one level, and balances say which is longer.
//! Source: `_MMVAD`, `_MMVAD_SHORT`, `_MM_AVL_TABLE`, `_RTL_BALANCED_NODE` in public symbols.

use crate::{
    Error,
    machine::{KERNEL, Machine},
    physical::PAGE,
    pool::Pool,
    truth::{Vad, VadKind},
};

/// A region to be put into the tree.
#[derive(Clone, Debug)]
pub(crate) struct VadPlan {
    pub(crate) start: u64,
    pub(crate) last: u64,
    pub(crate) kind: VadKind,
    pub(crate) vad_type: u8,
    pub(crate) protection: u8,
    /// Subsection, first and last prototype entry, and the file, if it maps a section.
    pub(crate) section: Option<(u64, u64, u64, String)>,
}

/// Where the links of a node are, and of which form.
#[derive(Clone, Copy, Debug)]
struct Links {
    left: u64,
    right: u64,
    parent: u64,
}

impl Machine {
    /// Builds the tree of a process from regions sorted by address.
    pub(crate) fn vads(&mut self, process: u64, plans: &[VadPlan]) -> Result<Vec<Vad>, Error> {
        let nodes: Vec<u64> = plans.iter().map(|plan| self.vad(plan)).collect::<Result<_, _>>()?;
        let width = self.pointer();
        let root = process + self.offsets.need("_EPROCESS.VadRoot")?;
        if self.offsets.seven() {
            // The tree hangs to the right of a node in the process, which is its own parent.
            let links = Links { parent: 0, left: width, right: 2 * width };
            let top = self.subtree(&nodes, links, root)?.0;
            self.put_pointer(root, root)?;
            self.put_pointer(root + 2 * width, top)?;
            let elements = nodes.len() as u64;
            self.put_pointer(root + 5 * width, elements << 8 | u64::from(elements.max(1).ilog2() + 1))?;
            self.put_pointer(root + 6 * width, nodes.first().copied().unwrap_or(0))?;
        } else {
            let links = Links { left: 0, right: width, parent: 2 * width };
            let top = self.subtree(&nodes, links, 0)?.0;
            self.put_pointer(root, top)?;
            // A hint and a count follow; in 14393 two numbers of 32 bits, one of them the exit status, come first.
            let status = process + self.offsets.need("_EPROCESS.ExitStatus")?;
            let hint = if (root..root + 2 * width).contains(&status) { root + 2 * width } else { root + width };
            self.put_pointer(hint, nodes.last().copied().unwrap_or(0))?;
            self.put_pointer(hint + width, nodes.len() as u64)?;
        }
        let seen = plans.iter().zip(nodes).map(|(plan, node)| Vad {
            node,
            start: plan.start,
            last: plan.last,
            kind: plan.kind,
            vad_type: plan.vad_type,
            protection: plan.protection,
            private: plan.kind == VadKind::Private,
            file: plan.section.as_ref().map(|section| section.3.clone()),
        });
        Ok(seen.collect())
    }

    /// Links sorted nodes below `parent`; the top one, and how many levels there are.
    fn subtree(&mut self, nodes: &[u64], links: Links, parent: u64) -> Result<(u64, u32), Error> {
        if nodes.is_empty() {
            return Ok((0, 0));
        }
        let middle = nodes.len() / 2;
        let node = nodes[middle];
        let (left, left_levels) = self.subtree(&nodes[..middle], links, node)?;
        let (right, right_levels) = self.subtree(&nodes[middle + 1..], links, node)?;
        // 0 even, 1 right, 3 (minus one in two bits) left.
        let balance = match left_levels.cmp(&right_levels) {
            std::cmp::Ordering::Less => 1,
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => 3,
        };
        self.put_pointer(node + links.left, left)?;
        self.put_pointer(node + links.right, right)?;
        self.put_pointer(node + links.parent, parent | balance)?;
        Ok((node, left_levels.max(right_levels) + 1))
    }

    fn vad(&mut self, plan: &VadPlan) -> Result<u64, Error> {
        let full = self.offsets.need("sizeof(_MMVAD)")?;
        let node = match &plan.section {
            Some(_) => self.pool(Pool::NonPaged, full, b"Vad ")?,
            None => self.pool(Pool::NonPaged, 10 * self.pointer(), b"VadS")?,
        };
        let (start, last) = (plan.start / PAGE, plan.last / PAGE);
        let high = self.offsets.get("_MMVAD_SHORT.StartingVpnHigh").is_some();
        let width = if high { 4 } else { self.pointer() };
        self.field(node, "_MMVAD_SHORT.StartingVpn", width, start)?;
        self.field(node, "_MMVAD_SHORT.EndingVpn", width, last)?;
        self.field(node, "_MMVAD_SHORT.StartingVpnHigh", 1, start >> 32)?;
        self.field(node, "_MMVAD_SHORT.EndingVpnHigh", 1, last >> 32)?;
        let bit = |name: &'static str| self.offsets.need(name);
        let mut flags = u64::from(plan.vad_type) << bit("_MMVAD_FLAGS.VadType@bit")?
            | u64::from(plan.protection) << bit("_MMVAD_FLAGS.Protection@bit")?
            | u64::from(plan.kind == VadKind::Private) << bit("_MMVAD_FLAGS.PrivateMemory@bit")?;
        let pages = last - start + 1;
        if self.offsets.seven() {
            // Charged pages are the low bits of the same word.
            flags |= if plan.kind == VadKind::Private { pages } else { 0 };
        }
        let flag_bytes = if self.offsets.seven() { self.pointer() } else { 4 };
        self.field(node, "_MMVAD_SHORT.u", flag_bytes, flags)?;
        if !self.offsets.seven() && plan.kind == VadKind::Private {
            let at = node + self.offsets.need("_MMVAD_SHORT.u")? + 4;
            self.put(KERNEL, at, 4, pages | 0x8000_0000)?;
        }
        if let Some((subsection, first, last, _)) = &plan.section {
            self.pointer_field(node, "_MMVAD.Subsection", *subsection)?;
            self.pointer_field(node, "_MMVAD.FirstPrototypePte", *first)?;
            self.pointer_field(node, "_MMVAD.LastContiguousPte", *last)?;
        }
        Ok(node)
    }
}
