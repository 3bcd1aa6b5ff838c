//! Where the binaries under test are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The broker that users run: `STONELOG_BIN`, else the release build.
pub fn release_binary() -> Result<PathBuf> {
    let binary =
        std::env::var_os("STONELOG_BIN").map_or_else(|| target_directory().join("release/stonelog"), PathBuf::from);
    if !binary.is_file() {
        bail!("no broker at {}: cargo build --release -p stonelog, or set STONELOG_BIN", binary.display());
    }
    Ok(binary)
}

/// The broker whose guards can be switched off, if it was built: see the feature `mutants`.
pub fn mutant_binary() -> Result<PathBuf> {
    let binary = std::env::var_os("STONELOG_MUTANT_BIN")
        .map_or_else(|| target_directory().join("debug/stonelog-mutant"), PathBuf::from);
    if !binary.is_file() {
        let build = "cargo build -p stonelog-tests --features mutants --bin stonelog-mutant";
        bail!("no broker with switchable guards at {}: {build}", binary.display());
    }
    Ok(binary)
}

/// The writer that power is taken from, built with these tests.
pub fn writer() -> Result<PathBuf> {
    built("power-writer", "cargo build -p stonelog-tests --bin power-writer")
}

/// The same with guards that can be switched off.
pub fn mutant_writer() -> Result<PathBuf> {
    built("power-writer-mutant", "cargo build -p stonelog-tests --features mutants --bin power-writer-mutant")
}

fn built(name: &str, build: &str) -> Result<PathBuf> {
    let binary = target_directory().join("debug").join(name);
    if !binary.is_file() {
        bail!("no {name} at {}: {build}", binary.display());
    }
    Ok(binary)
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}
