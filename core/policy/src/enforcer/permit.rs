//! Proofs that the policy allows something.

use std::ops::Deref;

/// Proof that the policy allows `T`. Only the [`crate::Enforcer`] makes one, and it can be used once: whatever is dangerous
/// takes it by value.
///
/// ```
/// // It is taken and read like this.
/// fn unmount(permit: caveau_policy::Permit<caveau_policy::UnmountLayer>) {
///     let caveau_policy::UnmountLayer { target } = permit.into_inner();
///     println!("unmounting {target}");
/// }
/// ```
/// ```compile_fail
/// // Its field is private.
/// let forged = caveau_policy::Permit { permitted: caveau_policy::UnmountLayer { target: String::new() } };
/// ```
/// ```compile_fail
/// // So is its maker.
/// let forged = caveau_policy::Permit::grant(caveau_policy::UnmountLayer { target: String::new() });
/// ```
/// ```compile_fail
/// // It has no default, cannot be copied, and is not read from outside.
/// fn twice<T>(permit: caveau_policy::Permit<T>) -> [caveau_policy::Permit<T>; 2] { [permit.clone(), permit] }
/// ```
#[derive(Debug)]
#[must_use = "a permit that is not used allowed nothing"]
pub struct Permit<T> {
    permitted: T,
}

impl<T> Permit<T> {
    /// The one maker.
    pub(super) fn grant(permitted: T) -> Self {
        Self { permitted }
    }

    /// Uses the permit up: what is permitted, to be done now.
    pub fn into_inner(self) -> T {
        self.permitted
    }
}

/// A permit can be read.
impl<T> Deref for Permit<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.permitted
    }
}
