//! A whole protocol under a scheduler: several users of one database in one
//! thread, which give way to each other before every call of the coordination
//! and the files, and at every step point (each store to shared memory). Which
//! one goes on is decided by a seed or by a list, so every run is repeated
//! exactly.
//!
//! | file | what it owns |
//! |---|---|
//! | `turns` | the users as coroutines, and who goes on |
//! | `yielding` | a coordination and files that give way before each call |
//! | `users` | what the users do, and what they must see |

mod turns;
mod users;
mod yielding;

pub use turns::{Order, Turns};
pub use users::{Operation, run};
