#!/bin/sh
# Make .venv with the pinned packages, or repair one that an interrupted run left.
# Usage: deploy/setup.sh [extra]      e.g. deploy/setup.sh dev
set -eu
cd "$(dirname "$0")/.."

extra="${1:-}"
venv=.venv
wanted="$(cat constraints.txt pyproject.toml | cksum | tr -d ' \t')"
# `dev` includes all packages that `run` needs, so its stamp is valid for both.
if [ "$(cat "$venv/.installed-dev" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
stamp="$venv/.installed${extra:+-$extra}"
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

python=""
for candidate in "${PYTHON:-}" python3.11 python3 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        python="$candidate"
        break
    fi
done
if [ -z "$python" ]; then
    echo "Modelyard needs Python 3.11, but neither python3.11, python3 nor python is that." >&2
    echo "Install it, or set its path: PYTHON=/path/to/python3.11 make run" >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "This Python cannot make virtual environments; install its venv module" >&2
    echo "(on Debian and Ubuntu: apt install python3.11-venv) and run again." >&2
    exit 1
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "Making a virtual environment in $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
echo "Installing the pinned packages into $venv (about 2 GB; minutes on a first run)"
log="$venv/install.log"
# The pip of Python 3.11 takes twice the time; it is used if this upgrade fails.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --upgrade pip==26.3 >"$log" 2>&1 || true
"$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
    --progress-bar off --no-compile --constraint constraints.txt \
    --editable ".${extra:+[$extra]}" >"$log" 2>&1 &
pip=$!
trap 'kill $pip 2>/dev/null; exit 130' INT TERM
if [ -t 1 ]; then
    total="$(grep -vc '^#' constraints.txt)"
    while kill -0 $pip 2>/dev/null; do
        found="$(grep -c '^Collecting\|^Requirement already' "$log" || true)"
        printf '\r\033[K  %s of up to %s packages: %s' "$found" "$total" \
            "$(tail -1 "$log" | cut -c1-50)"
        sleep 0.3
    done
    printf '\r\033[K'
fi
if ! wait $pip; then
    tail -5 "$log" >&2
    echo "The packages could not be installed; see $log. The next run continues here." >&2
    exit 1
fi
trap - INT TERM
echo "Compiling them (less than a minute)"
# pip would compile files one by one, including the packages' own tests.
"$venv/bin/python" -m compileall -qq -j 0 -x '/tests?/' "$venv/lib" || true
echo "$wanted" >"$stamp"
echo "The packages are installed."
