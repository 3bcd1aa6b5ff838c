# For the Python suites: a virtual environment per pinned requirements.txt.

MANIFESTS=requirements.txt

toolchain() {
    command -v python3 >/dev/null 2>&1 || skip "python3 ≥ 3.9 with venv"
    python3 -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))" 2>/dev/null ||
        skip "python3 ≥ 3.9 with venv"
}

install() {
    python3 -m venv "$CACHE/venv"
    "$CACHE/venv/bin/pip" install --quiet --no-input --disable-pip-version-check --only-binary=:all: --no-deps \
        -r "$HERE/requirements.txt"
}

program() {
    PYTHONPATH="$LIB/python" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 exec "$CACHE/venv/bin/python" "$HERE/suite.py"
}
