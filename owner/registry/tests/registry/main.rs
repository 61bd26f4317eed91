//! The registry crate against layouts and archives, hostile ones among them, against a server that misbehaves on demand, and
//! against the tools and the registry that people use.

mod kept;
mod layouts;
mod pace;
mod processes;
mod referrers;
mod server;
mod store;
mod support;
mod tools;
mod wire;
