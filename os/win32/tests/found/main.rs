//! Generated machines: the kernel is found in all of them, in every way in which it can be found.
//!
//! What is expected is the generator's own list of what it built; it shares no code with the layer.

mod finding;
mod machine;
mod offsets;
