//! Golden sets: questions of which the answers are known, put to two providers.
//!
//! ```text
//! 1 set      a file of lines -> cases: a request, and what is expected of its answer   pure
//! 2 ask      each case to each provider that has not answered it, as a copy would be
//! 3 marks    an answer -> what it is worth by what was expected, 0 to 1                pure
//! 4 figures  quality, latency and cost side by side, with intervals                    pure
//! ```
//!
//! What a provider answered is kept, so that whoever stops here goes on where they stopped, and
//! the primary is not asked again for another candidate.

mod ask;
mod clearance;
mod figures;
mod marks;
mod run;
mod set;

pub use ask::{Asker, Failed};
pub use clearance::{Barred, clearance};
pub use figures::{Amount, Figures, LabelCount, Quality, Row};
pub use marks::{Marked, Measure, marked};
pub use run::{Progress, RunError, run};
pub use set::{Case, Expected, LineFault, Set, SetError};
