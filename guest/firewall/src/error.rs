//! Why rules are not in force.

use std::io;

use crate::{IpNetwork, MAX_DESTINATIONS, MAX_LISTENERS, Protocol};

/// Why the rules are not in force. Nothing of them is, but for [`FirewallError::Unacknowledged`] and
/// [`FirewallError::BadAnswer`], after which they may be: the guest must not go on in either case.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// There is a table of the name, in force or left behind: what it does is not known.
    #[error("there is a table caveau in this network namespace already: rules are put in force once")]
    AlreadyThere,
    /// The kernel answered what it does not answer.
    #[error("netfilter answered {what} instead of an acknowledgement of {expected}")]
    BadAnswer {
        /// What came.
        what: String,
        /// The message that was to be acknowledged.
        expected: String,
    },
    /// A listener with no port.
    #[error("a {protocol} listener has port 0: a port from 1 to 65535 is expected")]
    NoPort {
        /// Its protocol.
        protocol: Protocol,
    },
    /// A range of ports with none in it.
    #[error("destination {network} has no ports from {first} to {last}: the first is above the last")]
    NoPorts {
        /// The destination's addresses.
        network: IpNetwork,
        /// Where the range begins.
        first: u16,
        /// Where it ends.
        last: u16,
    },
    /// The kernel does not take a message; it took none of the others then.
    #[error("failed to put {message} in force")]
    Refused {
        /// What the message says.
        message: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// There is no netfilter to speak to, or it may not be spoken to.
    #[error("failed to {act} netfilter")]
    Socket {
        /// What was tried.
        act: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// More destinations than fit.
    #[error("{found} destinations: at most {MAX_DESTINATIONS} can be in force; write them as networks")]
    TooManyDestinations {
        /// How many there are.
        found: usize,
    },
    /// More listeners than fit.
    #[error("{found} listeners: at most {MAX_LISTENERS} can be in force")]
    TooManyListeners {
        /// How many there are.
        found: usize,
    },
    /// The kernel said nothing about a message.
    #[error("netfilter did not acknowledge {message}")]
    Unacknowledged {
        /// What the message says.
        message: String,
        /// Why nothing could be read.
        #[source]
        source: io::Error,
    },
}
