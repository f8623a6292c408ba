#!/usr/bin/env bash
# One worker's part of launch/tpu_pod.sh: installs, stops what runs, runs.
#
#   bash rest_jax/launch/tpu_worker.sh FLAGS     installs what is missing, then runs
#                                                python -m rest_jax.main --multihost FLAGS
#   bash rest_jax/launch/tpu_worker.sh --stop    SIGTERM, and waits for the end
#
# A run that is still there from an earlier start is stopped first, with a checkpoint.
# The program goes on if the connection is lost; its output is in ~/rest_jax.log. Exit
# status 64 stands for the program's 1, a mistake. PYTHON names another program to run.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
log=$HOME/rest_jax.log
pid_file=$HOME/rest_jax.pid
mistake=64
patience_s=${TPU_WORKER_PATIENCE_S:-300}  # for a checkpoint

say() { echo "tpu_worker $(hostname): $*" >&2; }

# The process of an earlier start; false where it has ended. Its number may be
# another's by now, so it must be one of ours.
is_running() {
  [[ -f $pid_file ]] && kill -0 "$(<"$pid_file")" 2>/dev/null &&
    tr '\0' ' ' <"/proc/$(<"$pid_file")/cmdline" | grep -q rest_jax.main
}

stop() {
  local end=$((SECONDS + patience_s))
  is_running || return 0
  say 'stopping what runs, with a checkpoint'
  kill -TERM "$(<"$pid_file")" || true
  while is_running && (( SECONDS < end )); do sleep 0.2; done
  if is_running; then
    say "it has not ended in $patience_s s: killed"
    kill -KILL "$(<"$pid_file")" || true
  fi
}

install() {
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' &&
    ! command -v python3.11 >/dev/null; then
    say 'installing Python 3.11'
    sudo apt-get update -qq
    sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3.11-venv
  fi
  bash launch/setup_venv.sh
  # The accelerator's library and the bucket's, at the versions that fit the lock.
  if ! .venv/bin/python -c 'import libtpu, gcsfs' 2>/dev/null; then
    .venv/bin/python -m pip install -q -c requirements.lock -e '.[tpu,gcs]'
  fi
}

stop
if [[ ${1:-} == --stop ]]; then
  exit 0
fi
if [[ -z ${PYTHON:-} ]]; then
  install
fi
python=${PYTHON:-.venv/bin/python}

# In a session of its own, which the end of the connection does not reach.
touch "$log"
start=$(($(wc -l <"$log") + 1))
setsid nohup "$python" -m rest_jax.main --multihost "$@" >>"$log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pid_file"
tail --pid="$pid" -n "+$start" -f "$log" &
status=0
wait "$pid" || status=$?
wait "$!" || true  # the last lines
rm -f "$pid_file"
if (( status == 1 )); then
  exit "$mistake"
fi
exit "$status"
