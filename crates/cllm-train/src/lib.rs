//! Training consistency models (Kou et al. 2024, arXiv 2403.00835).

pub mod data;
pub mod learner;
pub mod model;
pub mod packed;
