//! What a node knows of other nodes: trees, whom to dial, and whether a peer holds the same.
//!
//! Owns the records of the mesh, the dialling of configured peers, and the comparison of digests.
//! Knows no frame that is on its way: the node sends and receives.

pub mod convergence;
pub mod dial;
pub mod topology;
pub mod unmet;
