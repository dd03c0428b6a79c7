//! Builds the pausing VFS, a loadable extension for stock SQLite, and the
//! failing calls, which are preloaded into workers, and tells the crate where
//! they lie: `env!("PAUSING_VFS")`, `env!("FAILING_CALLS")`; and where SQLite's headers do:
//! `env!("SQLITE_INCLUDE")`.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

/// The extension's source, beside this file.
const PAUSING_VFS: &str = "pausing-vfs/pausing_vfs.c";
const FAILING_CALLS: &str = "failing-calls/failing_calls.c";

fn main() -> Result<(), Box<dyn Error>> {
    // `sqlite3ext.h` comes from the same crate as the bundled SQLite.
    let include = env::var_os("DEP_SQLITE3_INCLUDE")
        .ok_or("libsqlite3-sys did not say where its headers are")?;
    println!(
        "cargo::rustc-env=SQLITE_INCLUDE={}",
        Path::new(&include).display()
    );
    println!(
        "cargo::rustc-env=SQLITE_SOURCE={}",
        Path::new(&include).display()
    );
    let out_dir = env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?;
    let out_dir = PathBuf::from(out_dir);
    // SQLite derives the name of the entry point from this file name.
    for (source, name, variable) in [
        (PAUSING_VFS, "pausing_vfs.so", "PAUSING_VFS"),
        (FAILING_CALLS, "failing_calls.so", "FAILING_CALLS"),
    ] {
        let library = out_dir.join(name);
        build_library(Path::new(&include), source, &library)?;
        println!("cargo::rerun-if-changed={source}");
        println!("cargo::rustc-env={variable}={}", library.display());
    }
    Ok(())
}

/// Compiles and links in one call of the C compiler: `cc` itself builds static
/// libraries only.
fn build_library(include: &Path, source: &str, library: &Path) -> Result<(), Box<dyn Error>> {
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
        .arg(source)
        .arg("-o")
        .arg(library)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the C compiler could not build {source}: {status}").into())
    }
}
