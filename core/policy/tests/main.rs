//! The engine against recorded decisions of the reference, and each rule against what it must refuse.

mod any_container;
mod conformance;
mod denials;
mod enforcer;
mod extension;
mod fragments;
mod properties;
