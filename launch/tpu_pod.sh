#!/usr/bin/env bash
# Runs a gin file on all workers of a Cloud TPU slice, to the end.
#
#   launch/tpu_pod.sh --name=NAME --zone=ZONE [OPTIONS] -- FLAGS
#
#   launch/tpu_pod.sh --name=rest --zone=us-east5-a --type=v6e-16 --spot -- \
#     --gin_file=gin_configs/runs/local.gin --gin.MODEL_DIR="'gs://bucket/runs/a'"
#   launch/tpu_pod.sh --print ...   what would be done, in order; does nothing
#
#   --type=v6e-16          makes the slice, as a queued resource of that name, if there
#                          is none, and again each time a spot slice is taken away
#   --version=RUNTIME      of the TPU VMs; by default the one for the type
#   --spot                 cheaper, and may be taken away
#   --project=PROJECT      the one gcloud is set to, by default
#   --env=NAME=VALUE       of the program; may be given several times
#   --delete               removes the slice when the run has ended; else it stays, and
#                          is paid for
#   --max_restarts=N       100
#
# FLAGS are those of `python -m rest_jax.main`; MODEL_DIR must be in a bucket that the
# slice's service account can write to. The files of this checkout that git does not
# ignore are copied to every worker (launch/tpu_worker.sh there installs and runs).
#
# The run is started again, and goes on where it was, after anything but status 0
# (finished) and 1 (a mistake, which the output names). Ctrl-C stops it on the workers,
# with a checkpoint. If this script or its machine dies the workers go on; called again
# it stops them first, with a checkpoint. Needs gcloud, signed in.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name='' zone='' type='' version='' spot='' project='' delete='' print=''
max_restarts=100
variables=()
poll_s=${TPU_POD_POLL_S:-20}
mistake=64  # what tpu_worker.sh makes of status 1, which gcloud's own errors have too

say() { echo "tpu_pod: $*" >&2; }

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }

while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --max_restarts=*) max_restarts=${1#*=} ;;
    --env=*=*) variables+=("${1#*=}") ;;
    --spot) spot=1 ;;
    --delete) delete=1 ;;
    --print) print=1 ;;
    --) shift; break ;;
    *) say "unknown option $1; flags of the run follow --, see --help"; exit 1 ;;
  esac
  shift
done
if [[ -z $name || -z $zone || $# -eq 0 ]]; then
  say 'give --name=NAME --zone=ZONE -- FLAGS, see --help'
  exit 1
fi
place=("--zone=$zone")
[[ -z $project ]] || place+=("--project=$project")
if [[ -z $version ]]; then
  case $type in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    *) version=tpu-ubuntu2204-base ;;
  esac
fi

# Does, or with --print says.
run() {
  if [[ -n $print ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

tpus() { run gcloud compute tpus "$@" "${place[@]}" --quiet; }

on_all_workers() {
  tpus tpu-vm ssh "$name" --worker=all --command="$1" \
    --ssh-flag='-o ServerAliveInterval=30' --ssh-flag='-o ServerAliveCountMax=6'
}

# READY, PREEMPTED, ...; empty where there is no such slice.
slice_state() {
  [[ -n $print ]] || gcloud compute tpus tpu-vm describe "$name" "${place[@]}" \
    '--format=value(state)' 2>/dev/null || true
}

request_state() {
  [[ -n $print ]] || gcloud compute tpus queued-resources describe "$name" \
    "${place[@]}" '--format=value(state.state)' 2>/dev/null || true
}

# Leaves a slice that is ready, or says why there is none and fails.
ensure_slice() {
  local slice request
  while :; do
    slice=$(slice_state)
    [[ $slice != READY ]] || return 0
    request=$(request_state)
    case $slice/$request in
      */FAILED)
        say "the request for $name failed; look at: gcloud compute tpus" \
          "queued-resources describe $name ${place[*]}"
        return 1 ;;
      PREEMPTED/* | TERMINATED/* | */SUSPENDED | */SUSPENDING)
        say "$name was taken away (${slice:-no slice}, ${request:-no request})"
        if [[ -z $request ]]; then
          say 'it was not made by this script: remove it, then start again'
          return 1
        fi
        tpus queued-resources delete "$name" --force || sleep "$poll_s" ;;
      /)
        if [[ -z $type ]]; then
          say "there is no TPU $name in $zone; --type=v6e-16 would make it"
          return 1
        fi
        tpus queued-resources create "$name" "--node-id=$name" \
          "--accelerator-type=$type" "--runtime-version=$version" ${spot:+--spot} || return 1
        [[ -z $print ]] || return 0 ;;
      *)
        say "waiting for $name (${slice:-no slice yet}, ${request:-no request})"
        sleep "$poll_s" ;;
    esac
  done
}

copy_checkout() {
  local archive=rest_jax.tar.gz
  if [[ -z $print ]]; then
    archive=$scratch/$archive
    (cd "$root" && git ls-files -coz --exclude-standard |
      tar --null --ignore-failed-read -czf "$archive" -T -)
  fi
  tpus tpu-vm scp "$archive" "$name:" --worker=all || return 1
  on_all_workers "$unpack"
}

# What an earlier start left running must end before its files change.
unpack='if [ -e rest_jax/launch/tpu_worker.sh ]; then'
unpack+=' bash rest_jax/launch/tpu_worker.sh --stop; fi;'
unpack+=' rm -rf rest_jax/rest_jax rest_jax/gin_configs; mkdir -p rest_jax &&'
unpack+=' tar -xzf rest_jax.tar.gz -C rest_jax'

# shellcheck disable=SC2329  # the trap calls it
stop() {
  trap '' INT TERM
  say 'stopping the run on the workers, with a checkpoint'
  on_all_workers 'bash rest_jax/launch/tpu_worker.sh --stop' || true
  say 'stopped; the same command goes on from here'
  exit 130
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
[[ -n $print ]] || trap stop INT TERM

printf -v program '%q ' env ${variables[@]+"${variables[@]}"} \
  bash rest_jax/launch/tpu_worker.sh "$@"
restarts=0
while :; do
  ensure_slice || { status=1; break; }
  status=0
  # A background job: the signal comes to this script at once, and not to gcloud.
  { copy_checkout && on_all_workers "$program"; } &
  wait "$!" || status=$?
  [[ -z $print ]] || break
  if (( status == 0 )); then
    say 'finished'
    break
  elif (( status == mistake )); then
    say 'ended by a mistake: see above'
    status=1
    break
  elif (( restarts >= max_restarts )); then
    say "ended with status $status, and was started $((restarts + 1)) times already"
    break
  fi
  restarts=$((restarts + 1))
  say "ended with status $status; start $((restarts + 1)) goes on from there"
  sleep "$poll_s"
done

if [[ -n $delete ]]; then
  tpus queued-resources delete "$name" --force
elif [[ -z $print ]]; then
  say "$name stays, and is paid for; to remove it: gcloud compute tpus" \
    "queued-resources delete $name ${place[*]} --force"
fi
exit "$status"
