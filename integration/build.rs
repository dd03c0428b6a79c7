//! Builds the pausing VFS, a loadable extension for stock SQLite, and tells the
//! crate where it lies: `env!("PAUSING_VFS")`.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

/// The extension's source, beside this file.
const SOURCE: &str = "pausing-vfs/pausing_vfs.c";

fn main() -> Result<(), Box<dyn Error>> {
    // `sqlite3ext.h` comes from the same crate as the bundled SQLite.
    let include = env::var_os("DEP_SQLITE3_INCLUDE")
        .ok_or("libsqlite3-sys did not say where its headers are")?;
    let out_dir = env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?;
    // SQLite derives the name of the entry point from this file name.
    let library = PathBuf::from(out_dir).join("pausing_vfs.so");
    build_extension(Path::new(&include), &library)?;

    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rustc-env=PAUSING_VFS={}", library.display());
    Ok(())
}

/// Compiles and links in one call of the C compiler: `cc` itself builds static
/// libraries only.
fn build_extension(include: &Path, library: &Path) -> Result<(), Box<dyn Error>> {
    let status = cc::Build::new()
        .pic(true)
        .flag("-Wall")
        .flag("-Wextra")
        .try_get_compiler()?
        .to_command()
        .arg("-shared")
        .arg("-pthread")
        .arg("-I")
        .arg(include)
        .arg(SOURCE)
        .arg("-o")
        .arg(library)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the C compiler could not build {SOURCE}: {status}").into())
    }
}
