//! Structures that cannot be read in one batch as they are written.

use memflow_derive::Batcher;

#[derive(Batcher)]
enum Either {
    One,
}

#[derive(Batcher)]
struct Nowhere {
    number: u32,
}

#[derive(Batcher)]
struct Mistakes {
    #[batch]
    bare: u8,
    #[batch(size = 4)]
    unknown: u8,
    #[batch(offset = 1, offset = 2)]
    twice: u8,
    #[batch(offset = 1, stride = 2)]
    plain: [u8; 2],
    #[batch(offset = 1)]
    #[batch(offset = 2)]
    places: u8,
}

#[derive(Batcher)]
struct Types {
    #[batch(offset = "1")]
    number: u8,
}

fn main() {}
