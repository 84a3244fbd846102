//! The nearest of the names that exist, for a name that does not: as templates have it, so that all faults say the same.

pub use warren_liquid::nearest;
