//! Whole launches: a launcher's requests, a guest's questions (through `caveau-tee`), a verifier's judgement of the answers.

mod kds;
mod launches;
mod link;
mod machine;
