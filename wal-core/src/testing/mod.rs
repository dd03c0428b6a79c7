//! The two hooks through which tests reach into the protocol: *step points*, at
//! which a test stops or kills the process, and *rules*, each of which a test
//! breaks on purpose to see that some test notices. Beside them, `index` lets the conformance
//! suite look at the wal-index past the protocol.
//!
//! Without the features `step-points` and `mutations` a step point is an empty
//! function and a rule is its own condition or statements, so a release build
//! has nothing of either.

macro_rules! named {
    ($(#[$about:meta])* $kind:ident: $($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $kind { $($(#[$doc])* $name,)* }

        impl $kind {
            /// Every one there is.
            pub const ALL: &'static [$kind] = &[$($kind::$name,)*];

            /// The name by which a test asks for it.
            pub const fn name(self) -> &'static str {
                match self { $($kind::$name => $text,)* }
            }
        }
    };
}

#[cfg(all(feature = "step-points", not(loom)))]
pub mod index;
mod points;
mod rules;

#[cfg(feature = "step-points")]
pub use points::set_hook;
pub use points::{Point, step};
pub use rules::Rule;
#[cfg(feature = "mutations")]
pub use rules::is_broken;
pub(crate) use rules::rule;
