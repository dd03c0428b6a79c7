//! The suite that every [`crate::WalCoordination`] passes.
