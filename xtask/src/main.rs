//! Galo.

fn main() {}
