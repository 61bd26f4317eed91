//! Recorded evidence and its verdicts; and what must be refused.

mod cases;
mod corim;
mod fixtures;
mod forged;
mod names;
mod other_kinds;
mod request;
mod signed_values;
mod tokens;
