//! Where the executables of this package are.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The executable `name`: what the environment names in `variable`, else the
/// one that cargo puts beside this one, or one up from `deps` where test
/// binaries are.
pub(crate) fn find(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Ok(path.into());
    }
    let executable = env::current_exe()?;
    let candidates = executable.ancestors().skip(1).take(2);
    candidates
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("no {name} beside {}", executable.display()))
}
