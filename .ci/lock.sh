#!/usr/bin/env bash
# Writes requirements.lock, and from it environment.yml, .binder/environment.yml and
# tests/benchmarks/peers.txt. Arguments go to uv: --upgrade takes the newest releases; without it,
# pins that still fit are kept. UV=path uses an installed uv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The release that the committed figures and timings were made with: raise it separately, and make
# those again.
torch=2.13.0
conda_python=3.11

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "${UV:-}" ]; then
  "${PYTHON:-python3}" -m venv "$work/venv"
  "$work/venv/bin/python" -m pip install -qq --disable-pip-version-check uv
  UV=$work/venv/bin/uv
fi
# torch's CUDA runtime is left out, by prefix, because the list of these packages changes with
# torch's releases.
without_cuda() { grep -vE '^(nvidia-|cuda-)' "$1"; }
compile() { "$UV" pip compile --quiet --no-header --no-annotate --all-extras "$@" pyproject.toml; }

echo "torch==$torch" >"$work/constraints.txt"
cp requirements.lock "$work/lock.txt"
compile --universal --python-version 3.10 --constraints "$work/constraints.txt" \
  --output-file "$work/lock.txt" "$@" >/dev/null
{
  cat <<HEADER
# Every package of the environment, pinned, for Python 3.10 and later on any platform.
# Made by \`make lock\` from pyproject.toml; change that file, not this one.
# torch's CUDA runtime (nvidia-*, cuda-*) is left out: a CUDA wheel of torch names the versions that
# it needs, and a CPU wheel needs none. triton is the one that a CUDA wheel of this torch asks for.
# No hashes: torch's wheels differ by index.
HEADER
  without_cuda "$work/lock.txt"
} >"$work/requirements.lock"
mv "$work/requirements.lock" requirements.lock

# The direct dependencies at the lock's versions: with --no-deps, uv looks at nothing else. Those for
# one platform are left out, since conda's file has no markers.
direct() {
  "$UV" pip compile --quiet --no-header --no-annotate --no-deps --python-version "$conda_python" \
    --constraints requirements.lock "$@" pyproject.toml | grep -v '^triton==' | sed 's/^/      - /'
}
conda() { # its arguments are the lines of its head
  printf '# %s\n' "$@"
  cat <<ENVIRONMENT
name: embvar-kit
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=$conda_python
  - pip
  - pip:
ENVIRONMENT
}

{
  conda "For conda and mamba: conda env create -f environment.yml" \
    "Made by \`make lock\`: pyproject.toml's direct dependencies at requirements.lock's versions."
  direct --all-extras
  echo '      - -e .'
} >"$work/environment.yml"
mv "$work/environment.yml" environment.yml

# Binder reads nothing else once there is a folder .binder. Its machines have no GPU and little
# memory: a CPU build, and no extras. postBuild installs the kit.
{
  conda "For Binder, which reads this instead of the environment.yml above it." \
    "Made by \`make lock\`: what pyproject.toml asks for, without extras, with a CPU build of PyTorch."
  echo '      - --extra-index-url https://download.pytorch.org/whl/cpu'
  direct
} >"$work/environment.yml"
mv "$work/environment.yml" .binder/environment.yml

# What the kit is measured against, with the lock's torch and transformers.
cp tests/benchmarks/peers.txt "$work/peers.txt"
"$UV" pip compile --quiet --no-header --no-annotate --universal --python-version 3.10 \
  --constraints requirements.lock --output-file "$work/peers.txt" "$@" tests/benchmarks/peers.in >/dev/null
{
  cat <<HEADER
# The environment of \`make bench-peers\`, pinned as requirements.lock is, without hashes as there.
# Made by \`make lock\` from peers.in; change that file, not this one.
HEADER
  without_cuda "$work/peers.txt"
} >"$work/peers.lock"
mv "$work/peers.lock" tests/benchmarks/peers.txt
