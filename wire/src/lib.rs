//! Galo.
