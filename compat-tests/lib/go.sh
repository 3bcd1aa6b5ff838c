# For the Go suites: the binary is built into the cache; go.sum pins every module.

MANIFESTS="go.mod go.sum main.go ../lib/go/compat.go"

toolchain() {
    local minor wanted
    wanted=$(sed -n 's/^go 1\.\([0-9]*\).*/\1/p' "$HERE/go.mod")
    command -v go >/dev/null 2>&1 || skip "go ≥ 1.$wanted"
    minor=$(go version | sed -n 's/.* go1\.\([0-9]*\).*/\1/p')
    if [ -z "$minor" ] || [ "$minor" -lt "$wanted" ]; then skip "go ≥ 1.$wanted (found $(go version))"; fi
}

install() {
    (cd "$HERE" && GOFLAGS="-mod=readonly -buildvcs=false" GOTOOLCHAIN=local go build -o "$CACHE/suite" .)
}

program() {
    exec "$CACHE/suite"
}
