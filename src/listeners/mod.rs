//! Where the program listens, and how it accepts whatever goes wrong meanwhile.

mod arrivals;
mod bind;
mod descriptors;

pub use arrivals::{Arrivals, Seldom};
pub use bind::{Listener, PublicAddress, bind};
pub use descriptors::{connections, raise};
