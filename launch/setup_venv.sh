#!/usr/bin/env bash
# Makes .venv at the root of the checkout and installs into it what
# requirements.lock pins, then this package in editable mode.
#
#   bash launch/setup_venv.sh
#
# local.sh, test.sh and .ci/run call this first, so there is rarely a reason to
# call it by hand. Once finished it does nothing (a few hundredths of a second)
# until requirements.lock, setup.py or pyproject.toml change, or the checkout moves.
# A .venv that was there before keeps its other packages. It may be killed at any
# moment and started twice at once: the next start completes the work, and the
# second start waits for the first.
#
# PYTHON=/path/to/python picks the interpreter (3.11 or later) of a new .venv.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
python=$venv/bin/python
stamp=$venv/rest_jax.stamp            # written last: what was installed
unfinished=$venv/rest_jax.unfinished  # present while something is being installed
creating=$root/.venv.creating         # present while .venv itself is being made

say() { echo "setup_venv: $*" >&2; }

# The versions wanted, and the place: a moved checkout must be installed again.
wanted() {
  local sum='sha256sum'
  command -v sha256sum >/dev/null || sum='shasum -a 256'
  echo "$root"
  (cd "$root" && $sum requirements.lock setup.py pyproject.toml)
}

is_ready() {
  [[ -f $stamp && $(<"$stamp") == "$(wanted)" ]] && "$python" -c '' 2>/dev/null
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  local candidate
  local known=(python3.11 python3.12 python3.13 python3 python)
  for candidate in ${PYTHON:+"$PYTHON"} "${known[@]}"; do
    if command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  say "found no Python 3.11 or later (tried: ${PYTHON:+$PYTHON }${known[*]})."
  say 'Install one, or name it: PYTHON=/path/to/python.'
  return 1
}

# True when .venv holds a Python that is new enough, with pip.
is_usable() {
  [[ ! -e $creating ]] && is_new_enough "$python" || return 1
  "$python" -m pip --version >/dev/null 2>&1 ||
    "$python" -m ensurepip >/dev/null 2>&1  # environments made by uv have no pip
}

create() {
  local base
  base=$(find_python)
  say "making .venv with $("$base" --version)"
  touch "$creating"
  "$base" -m venv --clear "$venv"
  rm -f "$creating"
}

# An install that was killed may leave a package half copied and yet listed as
# installed (a wheel may hold its metadata before its files). Forget each package of
# the lock whose files are not all there in full, and pip installs it again. Names
# with a leading ~ are what pip was about to remove.
repair() {
  say 'the last installation was interrupted; completing it'
  "$python" - "$root/requirements.lock" <<'PYTHON'
import csv, pathlib, re, shutil, sys, sysconfig


def normalise(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def is_complete(info, site):
  if not (info / 'INSTALLER').is_file() or not (info / 'RECORD').is_file():
    return False
  with open(info / 'RECORD', newline='') as file:
    rows = [row for row in csv.reader(file) if len(row) == 3]
  sizes = {site / name: size for name, _, size in rows if name != 'RECORD'}
  return all(
    path.is_file() and path.stat().st_size == int(size)
    for path, size in sizes.items()
    if size
  )


lock = pathlib.Path(sys.argv[1]).read_text()
locked = {normalise(name) for name in re.findall(r'^([\w.-]+)==', lock, re.M)}
for site in {pathlib.Path(sysconfig.get_path(p)) for p in ('purelib', 'platlib')}:
  for info in site.glob('*.dist-info'):
    name = normalise(info.name.removesuffix('.dist-info').rpartition('-')[0])
    if name in locked and not is_complete(info, site):
      shutil.rmtree(info)
  for path in site.glob('~*'):
    shutil.rmtree(path, ignore_errors=True)
PYTHON
}

install() {
  local pip=("$python" -m pip -qq --disable-pip-version-check --no-input install)
  say 'installing requirements.lock (the first time takes a minute or two)'
  # The lock is complete, so nothing is left to resolve, and it pins setuptools, so
  # the package itself is built without asking the network again.
  "${pip[@]}" --no-deps -r "$root/requirements.lock"
  "${pip[@]}" --no-deps --no-build-isolation -e "$root"
}

if is_ready; then
  exit 0
fi

if command -v flock >/dev/null; then
  exec 9>>"$root/.venv.lock"
  flock -n 9 || { say 'waiting for another start to finish installing'; flock 9; }
  if is_ready; then
    exit 0
  fi
fi

started=$SECONDS
is_usable || create
[[ ! -e $unfinished ]] || repair
rm -f "$stamp"
touch "$unfinished"
install
wanted >"$stamp.new"
rm -f "$unfinished"
mv "$stamp.new" "$stamp"
say "done in $((SECONDS - started)) s"
