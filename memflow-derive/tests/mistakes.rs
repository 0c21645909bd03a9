//! What the compiler says about wrong uses of the attributes.
//!
//! Owns: the messages, next to each file in `wrong/`. Must not know: how they come about.

#[test]
fn mistakes_are_errors_at_their_place() {
    trybuild::TestCases::new().compile_fail("tests/wrong/*.rs");
}
