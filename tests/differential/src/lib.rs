//! The verifier held against others' over the same evidence: genuine, generated and changed.
//!
//! Two implementations that share no code are seldom wrong in the same way. So the tests here give each piece of evidence to ours
//! and to another, and hold them to three rules:
//!
//! ```text
//! the other refuses          → ours refuses            or the reason why ours is right is listed
//! the other accepts, ours no → ours names its checks   and each is on the list of those that the other does not make
//! both accept                → every field is the same
//! ```
//!
//! A list says all and nothing but what occurs: an entry without a case is as wrong as a case without an entry. In this library is
//! what the tests have in common, which trusts nobody and knows no evidence: dice that always fall alike, and changes of bytes.

mod dice;
mod ledger;
mod mutation;

pub use dice::Dice;
pub use ledger::{Ledger, Listed, Verdicts};
pub use mutation::{Mutation, mutate};
