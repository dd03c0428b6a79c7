//! Colours. Output removes them where it goes to no terminal.

use std::fmt;

use anstyle::{AnsiColor, Style};

/// Something is broken or in danger.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something needs attention.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
/// Something is as it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// A heading, or a figure that counts.
pub(crate) const STRONG: Style = Style::new().bold();
/// What can be skipped.
pub(crate) const DIM: Style = Style::new().dimmed();

/// `text` in `style`.
pub(crate) fn paint(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}
