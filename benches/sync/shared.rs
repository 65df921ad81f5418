//! The chain generator of the library's own tests.

#[path = "../../src/chain/generator.rs"]
mod generator;

pub(crate) use generator::{Generator, Shape};
