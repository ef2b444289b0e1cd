//! Numbers that nobody can guess, from the system.

use slipstream_core::ids::StoreId;

/// Draws a number.
///
/// # Errors
/// What the system said.
pub fn random() -> Result<u64, String> {
    getrandom::u64().map_err(|error| error.to_string())
}

/// Draws the identity of a new store.
pub(crate) fn store_id() -> Result<StoreId, String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    Ok(StoreId(u128::from_le_bytes(random)))
}
