//! Tokens: who a process runs as.
//!
//! Owns: security identifiers as bytes and text, the TOKEN. Must not know: whose token it is.
//! Keeps: the integrity label is one of the groups, and the token says which.
//! Source: `_TOKEN` in public symbols; [MS-DTYP] 2.4.2 for identifiers.

use crate::{
    Error,
    description::Account,
    machine::{KERNEL, Machine},
    object::Kind,
    pool::Pool,
    truth,
};

/// A security identifier: the authority, and numbers below it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sid(u8, Vec<u32>);

impl Sid {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, self.1.len() as u8, 0, 0, 0, 0, 0, self.0];
        bytes.extend(self.1.iter().flat_map(|part| part.to_le_bytes()));
        bytes
    }
}

impl std::fmt::Display for Sid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S-1-{}", self.0)?;
        self.1.iter().try_for_each(|part| write!(f, "-{part}"))
    }
}

const ENABLED: u64 = 7;
const INTEGRITY: u64 = 0x60;

impl Machine {
    /// A token for an account.
    pub(crate) fn token(&mut self, account: Account, session: u32) -> Result<truth::Token, Error> {
        let person = Sid(5, vec![21, 1_004_336_348, 1_177_238_915, 682_003_330, 1001]);
        let (user, integrity) = match account {
            Account::System => (Sid(5, vec![18]), 0x4000),
            Account::LocalService => (Sid(5, vec![19]), 0x4000),
            Account::NetworkService => (Sid(5, vec![20]), 0x4000),
            Account::User => (person, 0x2000),
            Account::Administrator => (person, 0x3000),
            Account::Sandbox => (person, 0x1000),
        };
        let mut groups = vec![Sid(1, vec![0]), Sid(5, vec![11])];
        match account {
            Account::System | Account::Administrator => groups.insert(0, Sid(5, vec![32, 544])),
            _ => groups.push(Sid(5, vec![32, 545])),
        }
        groups.push(Sid(16, vec![integrity]));
        let all: Vec<Sid> = std::iter::once(user.clone()).chain(groups.iter().cloned()).collect();

        let width = self.pointer();
        let wide = width == 8;
        // From Windows 8 on, a longer audit policy moves what follows by four bytes, eight where pointers have to be aligned.
        let old = self.offsets.seven();
        let (count_at, groups_at, index_at) = match (old, wide) {
            (true, true) => (0x78, 0x90, 0xc8),
            (false, true) => (0x7c, 0x98, 0xd0),
            (true, false) => (0x78, 0x90, 0xb4),
            (false, false) => (0x7c, 0x94, 0xb8),
        };
        let fixed: u64 = if wide { 0x490 } else { 0x280 };
        let room: u64 = all.iter().map(|sid| 2 * width + sid.bytes().len() as u64).sum();
        let token = self.object(Kind::Token, Pool::Paged, fixed + room)?;
        self.write(KERNEL, token, if account == Account::System { b"*SYSTEM*" } else { b"User32 \0" })?;
        let (id, logon) = (self.rng.u64(0x1_0000..0x100_0000), self.rng.u64(0x1_0000..0x100_0000));
        self.put(KERNEL, token + 0x10, 8, id)?;
        self.put(KERNEL, token + 0x18, 8, if account == Account::System { 0x3e7 } else { logon })?;
        self.put(KERNEL, token + 0x28, 8, i64::MAX as u64)?;
        self.put(KERNEL, token + count_at - 4, 4, u64::from(session))?;
        self.put(KERNEL, token + count_at, 4, all.len() as u64)?;
        self.put_pointer(token + groups_at, token + fixed)?;
        self.put(KERNEL, token + index_at, 4, all.len() as u64 - 1)?;
        let mut text = token + fixed + all.len() as u64 * 2 * width;
        for (at, sid) in (token + fixed..).step_by(2 * width as usize).zip(&all) {
            self.put_pointer(at, text)?;
            let label = sid.0 == 16;
            self.put(KERNEL, at + width, 4, if label { INTEGRITY } else { ENABLED })?;
            self.write(KERNEL, text, &sid.bytes())?;
            text += sid.bytes().len() as u64;
        }
        Ok(truth::Token {
            address: token,
            user: user.to_string(),
            groups: groups.iter().map(Sid::to_string).collect(),
            integrity,
            session,
        })
    }
}
