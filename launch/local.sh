#!/usr/bin/env bash
# Runs all of ReST small, on this machine, from nothing: installs what is missing,
# makes a corpus and trains on it, and ends in a table and runs/local/report/.
#
#   launch/local.sh [FLAGS]
#
#   launch/local.sh                                    the smoke run, into runs/local
#   launch/local.sh --gin.MODEL_DIR="'/tmp/mine'"      the same into another folder
#   launch/local.sh --gin_file=gin_configs/FILE.gin    with one more gin file
#
# FLAGS are those of `python -m rest_jax.main` (launch/local.sh --helpfull lists
# them) and follow --gin_file=gin_configs/runs/local.gin, which this script gives. A
# further --gin_file is read after local.gin, bindings after all files, and of two
# that bind the same name the later one wins.
#
# Relative paths start at the root of the checkout, wherever you call this from.
# Started again, it reuses every stage that is finished and goes on from there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
  exit 0
fi

bash "$root/launch/setup_venv.sh"
cd "$root"

# Less noise from the libraries underneath, unless the caller wants it.
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
export GRPC_VERBOSITY=${GRPC_VERBOSITY:-ERROR}

exec .venv/bin/python -m rest_jax.main --gin_file=gin_configs/runs/local.gin "$@"
