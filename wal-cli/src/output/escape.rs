//! Text from outside, made safe for a terminal.

use std::borrow::Cow;

/// `text` with its control characters escaped. Command lines and paths are chosen by others,
/// and may hold sequences that change what a terminal shows.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        let escaped = text.chars().map(|c| match is_unsafe(c) {
            true => c.escape_default().to_string(),
            false => c.to_string(),
        });
        Cow::Owned(escaped.collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// As [`escape`], and cut to `width` characters: a command line may be a whole program.
pub(crate) fn escape_short(text: &str, width: usize) -> String {
    let escaped = escape(text);
    match escaped.char_indices().nth(width) {
        None => escaped.into_owned(),
        Some(_) => {
            let kept: String = escaped.chars().take(width.saturating_sub(1)).collect();
            kept + "…"
        }
    }
}

/// Control characters, and those that change the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::{escape, escape_short};

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(escape_short("12345", 5), "12345");
        assert_eq!(escape_short("123456", 5), "1234…");
        assert_eq!(escape_short("\u{1b}23456", 7), "\\u{1b}…");
    }

    #[test]
    fn control_characters_are_escaped_and_the_rest_is_kept() {
        assert_eq!(escape("python3 größe.py"), "python3 größe.py");
        assert_eq!(escape("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(escape("a\u{202e}b"), "a\\u{202e}b");
    }
}
