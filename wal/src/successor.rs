//! The attachment that took the place of the first one.
//!
//! A reader that may not write keeps a wal-index of its own while it is alone.
//! Once a writer comes, the shared one has to be used, through another
//! attachment ([`wal_core::Error::Superseded`]). Transactions that began
//! before go on with the first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use wal_core::Result;
use wal_core::protocol::Wal;
use wal_core::sync::Unpoison;

use crate::backend::Backend;

/// The newest attachment after the first, if there is one.
pub(crate) struct Successor<B: Backend> {
    /// Asked first, so that who may write, and never has one, pays a load.
    exists: AtomicBool,
    wal: RwLock<Option<Arc<Wal<B>>>>,
}

impl<B: Backend> Successor<B> {
    pub(crate) fn none() -> Self {
        Successor {
            exists: AtomicBool::new(false),
            wal: RwLock::new(None),
        }
    }

    /// True if there is one.
    #[inline]
    pub(crate) fn exists(&self) -> bool {
        // Acquire: pairs with the release in `replace`. The lock would do
        // for the value; this is for who looks at the flag alone.
        self.exists.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self) -> Option<Arc<Wal<B>>> {
        if !self.exists() {
            return None;
        }
        let wal = self.wal.read().unpoison();
        wal.clone()
    }

    /// Puts what `attach` gives in the place of `superseded`, which [`Successor::get`]
    /// gave, unless another thread has done that.
    pub(crate) fn replace(
        &self,
        superseded: Option<&Arc<Wal<B>>>,
        attach: impl FnOnce() -> Result<Arc<Wal<B>>>,
    ) -> Result<()> {
        let mut wal = self.wal.write().unpoison();
        let is_superseded =
            |wal: &Arc<Wal<B>>| superseded.is_some_and(|superseded| Arc::ptr_eq(wal, superseded));
        if wal.as_ref().is_none_or(is_superseded) {
            *wal = Some(attach()?);
            self.exists.store(true, Ordering::Release);
        }
        Ok(())
    }
}
