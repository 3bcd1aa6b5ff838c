# For the Node suites: the locked packages in the cache, and the programs copied beside them, because an ES module
# finds its packages only in a folder above its own.

MANIFESTS="package.json package-lock.json"

toolchain() {
    need node "$NODE_MAJOR" "node" node --version
    command -v npm >/dev/null 2>&1 || skip npm
}

install() {
    cp "$HERE/package.json" "$HERE/package-lock.json" "$CACHE/"
    (cd "$CACHE" && npm ci --ignore-scripts --omit=optional --no-audit --no-fund --silent)
}

program() {
    cp "$LIB/node/compat.mjs" "$HERE/suite.mjs" "$CACHE/"
    cd "$CACHE"
    exec node suite.mjs
}
