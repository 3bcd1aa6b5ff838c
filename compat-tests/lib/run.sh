# Shared by every suite's `run`: the cache folder, the toolchain check, install once per manifest.
#
# A suite's `run` sets CLIENT and MANIFESTS, defines `toolchain`, `install` and `program`, then calls `suite "$@"`.
# Exit codes: 0 passed, 77 skipped because the toolchain is absent, anything else failed.

set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE_ROOT=${STONELOG_COMPAT_CACHE:-$HOME/.cache/stonelog-compat}

skip() {
    echo "SKIPPED: $CLIENT needs $*"
    exit 77
}

# need COMMAND MIN_MAJOR LABEL VERSION_COMMAND...: the first number the version command prints is the major version.
need() {
    local command=$1 minimum=$2 label=$3
    shift 3
    command -v "$command" >/dev/null 2>&1 || skip "$label ≥ $minimum"
    local major
    major=$("$@" 2>&1 | grep -oE '[0-9]+' | head -n 1 || true)
    if [ -z "$major" ] || [ "$major" -lt "$minimum" ]; then skip "$label ≥ $minimum (found ${major:-none})"; fi
}

suite() {
    local what=${1:-all} sum
    toolchain
    sum=$(cd "$HERE" && cat $MANIFESTS | sha256sum | cut -c1-12)
    CACHE="$CACHE_ROOT/$CLIENT-$sum"
    export CACHE
    if [ "$what" != test ] && [ ! -e "$CACHE/.installed" ]; then
        mkdir -p "$CACHE_ROOT"
        # Two runs may want the same client at once: the second waits, and finds it installed.
        (
            if command -v flock >/dev/null 2>&1; then flock 9; fi
            if [ ! -e "$CACHE/.installed" ]; then
                rm -rf "$CACHE"
                mkdir -p "$CACHE"
                install
                touch "$CACHE/.installed"
            fi
        ) 9>"$CACHE_ROOT/$CLIENT.lock"
    fi
    if [ "$what" != install ]; then
        : "${BOOTSTRAP:?set BOOTSTRAP=host:port, or use compat-tests/run}"
        export BOOTSTRAP
        program
    fi
}
