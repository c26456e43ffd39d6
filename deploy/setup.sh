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

fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
python="" without_venv=""
for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    "$candidate" -c "$fits" 2>/dev/null || continue
    if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
        python="$candidate"
        break
    fi
    without_venv="${without_venv:-$candidate}"
done
if [ -z "$python" ] && [ -n "$without_venv" ]; then
    version="$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    echo "$without_venv cannot make virtual environments; install its venv module" >&2
    echo "(on Debian and Ubuntu: sudo apt install python$version-venv) and run again." >&2
    exit 1
fi
if [ -z "$python" ]; then
    cat >&2 <<'END'
Modelyard needs Python 3.11, 3.12 or 3.13, and none was found. Install one:
  Debian 12 and 13, Ubuntu 24.04   sudo apt install python3-venv
  Ubuntu 22.04                     sudo apt install python3.11-venv
  Fedora                           sudo dnf install python3.13
  macOS                            brew install python@3.13
Or set the path of one that you have: PYTHON=/path/to/python3.13 make run
END
    exit 1
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "Making a virtual environment in $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
echo "Installing the pinned packages into $venv (about 2 GB; minutes on a first run)"
log="$venv/install.log"
# Older versions of pip take twice the time; Python's own is used if this fails.
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
