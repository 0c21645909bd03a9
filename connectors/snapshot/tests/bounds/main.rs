//! Files that lie about what they hold are opened or refused within 50 ms and 64 MiB, whatever the format.

mod claims;
#[path = "../common/mod.rs"]
mod common;
mod heap;
mod large;
mod measure;
mod mutations;
mod subjects;
