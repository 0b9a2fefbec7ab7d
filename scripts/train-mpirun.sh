#!/bin/bash
# train-mpirun.sh - train on a plain cluster: start, and start again after a failure.
# usage: [HOSTFILE=hosts] [RANKS=N] [TRIES=5] scripts/train-mpirun.sh --run DIR [ARGUMENT...]
#
# ARGUMENTs are those of `kilorank train`.  HOSTFILE has a line for each host,
#     node1 slots=8
# with as many slots as it has devices: one rank for each.  Without it the ranks run here,
# one for each core.  RANKS: fewer than all slots; ranks on one host share out its cores,
# --set run.threads=N says otherwise.  All hosts must see the same DIR.
#
# A run that fails (a rank or a host is lost, a disk is full) is started again, at most
# TRIES times in a row without a new checkpoint.  One that is refused (bad settings, no
# valid checkpoint, held by another job) is not.  Ctrl-C, TERM and USR1 save and end it.
set -u
: "${KILORANK:=build/kilorank}" "${HOSTFILE:=}" "${RANKS:=}" "${TRIES:=5}" "${PAUSE:=5}"

run='' args=("$@")
for ((i = 0; i < $#; i++)); do
    case ${args[i]} in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --run) run=${args[i + 1]:-} ;;
    esac
done
if [ -z "$run" ]; then echo "train-mpirun.sh: --run DIR is missing" >&2; exit 2; fi
if [ "$(id -u)" -eq 0 ]; then # containers and CI
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
launch=(setsid mpirun --bind-to none -mca oob_tcp_keepalive_time 2 # a silent host: seconds
    -mca oob_tcp_keepalive_intvl 1 -mca oob_tcp_keepalive_probes 3)
[ -n "$HOSTFILE" ] && launch+=(--hostfile "$HOSTFILE")
[ -n "$RANKS" ] && launch+=(-np "$RANKS")
# to all ranks at once; setsid keeps Ctrl-C from mpirun, which would kill them
asked='' mpirun=''
trap 'asked=1; [ -z "$mpirun" ] || kill -USR1 "$mpirun"' USR1 TERM INT
newest() { cat "$run/checkpoints/latest" 2>/dev/null; }

for ((tried = 1; ; tried++)); do
    before=$(newest)
    "${launch[@]}" "$KILORANK" train "$@" &
    mpirun=$!
    while kill -0 "$mpirun" 2>/dev/null; do wait "$mpirun"; done # a trap ends `wait` too
    wait "$mpirun"
    code=$?
    [ "$(newest)" = "$before" ] || tried=1
    case $code in # docs/contract.md; 205: mpirun lost a host; above 128: a rank was killed
    1 | 5 | 6 | 8 | 75 | 205 | 12[89] | 1[3-9][0-9]) [ "$tried" -lt "$TRIES" ] || exit "$code" ;;
    *) exit "$code" ;;
    esac
    [ -n "$asked" ] || sleep "$PAUSE"
    [ -z "$asked" ] || exit "$code"
    echo "train-mpirun.sh: ended with $code; starting again ($tried of $TRIES)" >&2
done
