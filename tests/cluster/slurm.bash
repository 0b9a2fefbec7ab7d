# slurm.bash - a real Slurm on the hosts of lib.bash: controller on the head, a slurmd on each.
#
# After `cluster N`, `slurm_up` starts it, with folders and keys of its own; `sbatch`, `squeue`
# and all others then talk to this one.  Time limits are short, so that lost nodes and requeued
# jobs are a matter of seconds.  Needs root: slurmd becomes the user of a job.
#
#   slurm_up                start it all and wait until every node is idle
#   slurmd_on HOST          start a node's daemon (again)
#   controller start|stop   the controller alone; its state is kept
#   job_state JOB           RUNNING, PENDING, COMPLETED, FAILED, ...
# shellcheck shell=bash

slurm_needs() { # what is missing; empty: nothing
    local tool
    grep -q '^ *0 *0 *4294967295$' /proc/self/uid_map || echo "not root"
    for tool in slurmctld slurmd munged sbatch; do
        command -v "$tool" >/dev/null || echo "no program $tool"
    done
}

slurm_conf() {
    local last
    last=$(find "$CLUSTER_DIR" -name 'n*.init' | wc -l)
    cat <<END
ClusterName=pretend
SlurmctldHost=head($net.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$slurm/munge.socket,cred_expire=5
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool.%n
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd.%n.pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
SlurmdTimeout=$((10 * TIME_FACTOR))
MessageTimeout=10
KillWait=5
MinJobAge=3600
JobRequeue=1
SlurmdParameters=config_overrides
NodeName=n[1-$last] CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

slurm_up() {
    local host
    slurm=$CLUSTER_DIR/slurm
    export SLURM_CONF=$slurm/slurm.conf
    mkdir -p "$slurm/state" && slurm_conf >"$SLURM_CONF" || return 1
    head -c 1024 /dev/urandom >"$slurm/munge.key" && chmod 400 "$slurm/munge.key"
    munged --force --key-file="$slurm/munge.key" --socket="$slurm/munge.socket" \
        --pid-file="$slurm/munged.pid" --log-file="$slurm/munged.log" --seed-file="$slurm/munge.seed" &&
        controller start || return 1
    for host in $(sinfo -h -N -o %n); do slurmd_on "$host" || return 1; done
    # inside a job Open MPI starts its daemons as steps; a second start must not wait for the first
    unset OMPI_MCA_plm OMPI_MCA_plm_rsh_agent OMPI_MCA_plm_rsh_no_tree_spawn
    export OMPI_MCA_plm_slurm_args=--overlap
    within 20 all_idle
}
all_idle() { [ -z "$(sinfo -h -N -o %T | grep -v '^idle$')" ]; }
slurmd_on() { mkdir -p "$slurm/spool.$1" && on "$1" slurmd -N "$1" -f "$SLURM_CONF"; }
controller() {
    case $1 in
    start) slurmctld -f "$SLURM_CONF" && within 10 timeout 5 scontrol ping >/dev/null ;;
    stop) kill "$(cat "$slurm/slurmctld.pid")" && within 10 controller gone ;;
    gone) ! kill -0 "$(cat "$slurm/slurmctld.pid" 2>/dev/null)" 2>/dev/null ;;
    esac
}
job_state() { timeout 10 squeue -h -t all -j "$1" -o %T; }
