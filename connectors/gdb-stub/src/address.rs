//! Where a stub listens.
//!
//! Owns: [`Address`] and its text. Must not know: how one connects.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt, path::PathBuf, str::FromStr};

use memflow_core::{Error, Result};

/// Where a stub listens. As text: what holds a `/` is the path of a socket, anything else `HOST:PORT`; `PORT` and `:PORT` are on this
/// machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A host by name or number, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads a target whose port may be given apart from it.
    ///
    /// # Errors
    /// [`Error::Argument`] for what is no address, and for a second port.
    pub fn with_port(text: &str, port: Option<u16>) -> Result<Self> {
        match port {
            None => text.parse(),
            Some(_) if text.contains('/') || text.parse::<Self>().is_ok() => {
                Err(wrong(text, "an address without a port, as `port` names one"))
            }
            Some(port) => format!("{text}:{port}").parse(),
        }
    }
}

fn wrong(found: &str, expected: &'static str) -> Error {
    Error::Argument { what: "target".into(), expected: expected.into(), found: found.to_owned() }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let form = || wrong(text, "HOST:PORT, a port of this machine, or the path of a Unix socket (with a /)");
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(form)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match (host, bare) {
            ("", _) => Ok(Self::Tcp("localhost".to_owned(), port)),
            (_, Some(bare)) => Ok(Self::Tcp(bare.to_owned(), port)),
            // Numbers of IPv6 hold colons themselves: without brackets their last group would be the port.
            (host, None) if host.contains(':') => Err(wrong(text, "numbers of IPv6 in brackets: [::1]:1234")),
            (host, None) => Ok(Self::Tcp(host.to_owned(), port)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn hosts_ports_and_paths_are_told_apart() {
        for (text, host) in [("1234", "localhost"), (":1234", "localhost"), ("a.b:1234", "a.b"), ("[::1]:1234", "::1")]
        {
            assert_eq!(text.parse::<Address>().unwrap(), Address::Tcp(host.to_owned(), 1234), "{text}");
        }
        assert_eq!("./g.sock".parse::<Address>().unwrap(), Address::Unix("./g.sock".into()));
        assert_eq!("[::1]:1".parse::<Address>().unwrap().to_string(), "[::1]:1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "host", "host:", "host:0", "host:65536", "::1:1234", "host:12x"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn port_can_stand_apart() {
        assert_eq!(Address::with_port("box", Some(7)).unwrap(), Address::Tcp("box".to_owned(), 7));
        assert!(Address::with_port("box:6", Some(7)).is_err());
        assert!(Address::with_port("/run/g.sock", Some(7)).is_err());
        assert!(Address::with_port("box", None).is_err());
    }
}
