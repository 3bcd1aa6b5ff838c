# For the Rust suites: each is a workspace of its own with its own lock file, built into the cache.

MANIFESTS="Cargo.toml Cargo.lock src/main.rs ../lib/rust/src/lib.rs"

toolchain() {
    command -v cargo >/dev/null 2>&1 || skip "cargo (Rust ≥ 1.85)"
    command -v cc >/dev/null 2>&1 || skip "a C compiler"
    if [ "$CLIENT" = rdkafka ]; then command -v make >/dev/null 2>&1 || skip "make"; fi
}

install() {
    # One target folder for all versions of the suite: a changed program does not compile its client anew.
    CARGO_TARGET_DIR="$CACHE_ROOT/$CLIENT-target" cargo build --quiet --locked --manifest-path "$HERE/Cargo.toml"
    cp "$CACHE_ROOT/$CLIENT-target/debug/compat-$CLIENT" "$CACHE/suite"
}

program() {
    # Looks at the stored batches, where there is Python to do so.
    if command -v python3 >/dev/null 2>&1; then export COMPAT_WIRE="$LIB/python/wire.py"; fi
    exec "$CACHE/suite"
}
