//! Target strings and the arguments of plugins, as text and from code.
//!
//! Owns: the grammar below, [`Args`] with typed access, [`ArgSpec`] by which a plugin says what it takes, and [`check`].
//! Must not know: which plugins there are, how they are found and called.
//! Keeps: every malformed text is an error with its position and the accepted form; nothing is dropped or guessed. What is written is
//! read back as the same value.
//!
//! ```text
//! connector = name , [ "@" , version ] , [ ":" , ( target | [ target ] , ":" , args ) ] ;
//! os        = name , [ "@" , version ] , [ ":" , args ] ;
//! args      = arg , { "," , arg } ;                 (* at most 256, no key twice *)
//! arg       = key , [ "=" , text ] ;
//! target    = text ;
//! text      = plain | quoted ;
//!
//! name      = ( lower | digit ) , { lower | digit | "-" | "_" } ;       (* at most 32 characters *)
//! version   = word character , { word character | "." | "-" | "_" | "+" } ;   (* at most 64 *)
//! key       = lower , { lower | digit | "-" | "_" }                     (* at most 64 *)
//!           | quoted ;
//! plain     = [ drive ] , ordinary , { ordinary } ;
//! drive     = letter , ":" ;                        (* only if "\" or "/" follows *)
//! ordinary  = any character but ":" "," "=" '"' "'" and control characters ;
//! quoted    = "'" , { any character but "'" } , "'"
//!           | '"' , { any character but '"' and "\" | "\\" | '\"' | "\u{" , hexadecimal digits , "}" } , '"' ;
//! word character = letter | digit ;
//! ```
//!
//! Letters are those of ASCII, `lower` the lower-case ones. A plain text neither begins nor ends with white space. A text has at most
//! 64 KiB. Control characters are those of Unicode's category Cc.
//!
//! A backslash is itself in plain text and in single quotes, so paths of Windows stand as they are. Only in double quotes it starts
//! an escape, and one that is not listed is an error. A plain text may not end with a backslash when a separator follows: it could
//! be meant to take the separator's meaning away.
//!
//! A key alone means that a flag is on; [`check`] refuses it for other kinds. No plugin has a key that needs quotes; code can make
//! one, and then its text must not read as something else.
//!
//! `docs/target-strings.md` has examples.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod check;
mod grammar;
mod kind;
mod list;
mod quote;
mod spec;
mod target;
#[cfg(test)]
mod tests;
mod value;

pub use self::{
    check::{check, complete},
    grammar::{MAX_ARGS, MAX_TEXT},
    kind::ArgKind,
    list::Args,
    quote::is_plugin_name,
    spec::ArgSpec,
    target::{ConnectorSpec, OsSpec},
    value::ArgValue,
};
