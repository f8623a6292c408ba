#!/usr/bin/env bash
# Installs what is missing and runs the tests.
#
#   launch/test.sh                           all of them, quietly, slowest listed, in
#                                            a process for each core, up to four
#   launch/test.sh tests/test_filters.py -v  what you name, with pytest's own flags
#
# Paths start at the root of the checkout. The checks of style and types are in
# .ci/run.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [[ ${1:-} == --help ]]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  exit 0
fi

bash "$root/launch/setup_venv.sh"
cd "$root"

export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}

if [[ $# -eq 0 ]]; then
  # A file's tests stay together: they share what its fixtures have made. Files go out
  # in the order of tests/conftest.py, the slow ones first.
  set -- -q --durations=15 -n auto --maxprocesses=4 --dist loadfile \
    --no-loadscope-reorder
fi
exec .venv/bin/python -m pytest "$@"
