//! The small values that everything else is written in: page sizes, page and frame numbers,
//! salts, locks and read slots.

mod frame;
mod lock;
mod page;
mod read_slot;
mod salts;

pub use frame::FrameNo;
pub(crate) use frame::MAX_FRAME;
pub use lock::{Lock, LockMode};
pub use page::{PageNo, PageSize};
pub use read_slot::ReadSlot;
pub use salts::Salts;
pub(crate) use salts::random_bytes;
