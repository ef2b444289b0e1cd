//! Byte-exact vectors of everything that travels or rests; see `tests`.

mod tests;
