//! Sessions against made-up nodes.
