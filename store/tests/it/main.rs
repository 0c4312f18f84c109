//! The store from outside, over HTTP. Each test runs its own store in a process of its own: a
//! process can open one data folder, and some tests kill it.

mod attacks;
mod concurrency;
mod errors;
mod killed;
mod requests;
mod round_trip;
mod served;
