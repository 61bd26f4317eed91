//! Signed policy fragments, as their authors make them: their text, the keys that sign, and certificate chains to try
//! them with.
//!
//! Trusts the owner's machine and files. Promises that what is signed will be believed by a guest whose policy names
//! the signer (`caveau-cose` checks it before it is handed out), and that private keys are shown nowhere. Refuses keys
//! that are encrypted, and chains that are not the key's.

mod chain;
mod key;
pub mod pem;
mod text;
mod token;

pub use chain::{DevelopmentChain, DevelopmentSpec, MakeChainError};
pub use cryptoki::types::AuthPin;
pub use key::{KeyError, PrivateKey};
pub use text::{FragmentText, INCLUDES, TextError};
pub use token::{TokenError, TokenKey, TokenUri};
