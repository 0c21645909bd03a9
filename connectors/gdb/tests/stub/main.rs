//! The connector with stubs that are scripted: good ones of each kind, and ones that lie.

mod common;
mod hostile;
mod plain;
mod qemu;
