//! Files of 1 MB that claim millions of pages, name the same bytes again and again, overlap, or unpack without end.
//!
//! One file for each lie, by hand.

mod check;
mod files;
mod machines;
mod streams;
