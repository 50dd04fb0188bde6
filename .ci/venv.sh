#!/usr/bin/env bash
# Makes .venv anew and installs requirements.lock into it. The Makefile calls this when .venv is
# missing, unfinished, broken, moved from another place, or older than the lock.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
log=.venv/setup.log

say() { # its arguments are lines
  printf 'set-up: %s\n' "$1"
  if [ $# -gt 1 ]; then printf '        %s\n' "${@:2}"; fi
}
fail() {
  say "$@" >&2
  exit 1
}

command -v "$python" >/dev/null ||
  fail "There is no '$python' here. Install Python 3.10 or later," \
    "or name one, for example: make run PYTHON=python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "Python 3.10 or later is needed, and '$python' is older: $("$python" --version 2>&1)." \
    "Install a newer one and name it, for example: make run PYTHON=python3.12"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "'$python' lacks the modules venv and ensurepip and cannot make a virtual environment." \
    "Debian and Ubuntu keep them in a package of their own: apt install python3-venv" \
    "Or name another Python, for example: make run PYTHON=python3.12"
if [ -n "$(ls -A .venv 2>/dev/null)" ] && [ ! -e .venv/pyvenv.cfg ]; then
  fail ".venv is not a virtual environment. Move it away and try again."
fi

say "Making .venv with $("$python" --version) and installing requirements.lock." \
  "This takes a minute or two on a fast connection and 3 GB (7 GB with a CUDA build)."
"$python" -m venv --clear .venv || fail "'$python' -m venv failed; its message is above."

# -I: a package on PYTHONPATH does not count as installed.
if ! .venv/bin/python -I -m pip install -r requirements.lock 2>&1 | tee "$log" | awk '
  /^ *Downloading .*\(([0-9.]+ GB|[0-9][0-9][0-9][0-9.]* MB)\)/ { print "        downloading " $2, $3, $4 }
  /^Installing collected packages/ { print "        installing the packages" }
  { fflush() }'; then
  if grep -qE 'No space left on device|quota exceeded' "$log"; then
    fail "The disk is full. The environment takes some 3 GB with a CPU build of PyTorch and 7 GB" \
      "with a CUDA build. TMPDIR moves pip's temporary files; pip cache purge empties its cache."
  elif grep -qE '^WARNING: Retrying|NewConnectionError|Max retries|Read timed out|SSLError' "$log"; then
    fail "The Python package registry could not be reached, and the set-up needs it." \
      "Check the network and try again. Behind a proxy, set HTTPS_PROXY; with a mirror, set" \
      "PIP_INDEX_URL. All that pip said is in $log"
  fi
  tail -n 8 "$log" >&2
  fail "pip failed with the message above. All that it said is in $log"
fi
say "Installed the packages in $SECONDS s."
