//! Everything this crate is tested for as a whole, in one binary.

mod aggregates;
mod city;
mod decode;
mod keyed_operators;
mod model;
mod pipeline;
mod restored;
mod retirement;
mod time_model;
