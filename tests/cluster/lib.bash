# lib.bash - a cluster of hosts on one machine, for the scripts of this folder.
#
# A script sources this file and calls
#     cluster N
# From there on it runs on a host "head", with hosts n1..nN on its network.  Each host has
# its own address, name, processes, /tmp and /dev/shm, so it can lose its power, its cable or
# its memory like a real one.  They share the other files, as a cluster shares a file system.
# What the scripts of tests/fault have (check, train, hash_of, $work, ...) is here too; $work
# is seen by all hosts.
#
# Hosts are Linux namespaces inside namespaces of the script's own: when the script ends,
# even by SIGKILL, the kernel ends and forgets all of it.  Needs root, or a kernel that lets
# users make namespaces; else the script says SKIP and why, and ends well.
#
#   on HOST COMMAND...         run it there; its status
#   unplug HOST | plug HOST    the network cable
#   mute HOST | unmute HOST    nobody hears the host, it hears all
#   split HOST... | rejoin HOST...   these hear each other, and nobody else
#   throttle HOST RATE         what it may send, "2mbit"; 0: all.  Fails where the kernel cannot
#   loss HOST PERCENT          lose packets that come to it; 0: no longer
#   delay HOST MS              of what it sends; fails where the kernel cannot.  0: no longer
#   power_off HOST             cable first, then everything dies: its peers see silence
#   crash HOST                 everything dies, its kernel lives: its peers see closed connections
#   boot HOST                  start it again, with empty memory
#   within SECONDS COMMAND...  try until it succeeds
#
# $rsh is a program in place of ssh.  TIME_FACTOR (a whole number) stretches every limit, for
# slow or crowded machines.
# shellcheck shell=bash disable=SC2034  # some names are for the scripts
set -u

: "${TIME_FACTOR:=1}"
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
rsh=$checkout/tests/cluster/rsh
export CLUSTER_DIR=/run/cluster # on a file system of the cluster's own
net=10.99.0                     # n1 is .1, head is .254
spaces=(--net --uts --mount --pid --ipc --fork --kill-child=KILL --mount-proc
    --propagation private)
script=("$0" "$@")

# --- from the machine into the cluster -------------------------------------------------------

skip_all() { echo "ok 1 - cluster # SKIP $1"; echo 1..1; exit 0; }

enter() { # start the script again, as the first process of the head
    local limit tool user=()
    for tool in unshare nsenter setpriv ip; do
        command -v "$tool" >/dev/null || skip_all "no program $tool"
    done
    case $checkout in /run/*) skip_all "the checkout lies in /run" ;; esac
    [ "$(id -u)" -eq 0 ] || user=(--user --map-root-user)
    unshare "${user[@]}" "${spaces[@]}" true 2>/dev/null ||
        skip_all "namespaces are not permitted to this user"
    limit=$(sed -n 's/^# LIMIT: *\([0-9][0-9]*\)$/\1/p' "$0" | head -n 1)
    CLUSTER=1 exec timeout -s KILL "$((${limit:-120} * TIME_FACTOR))" setpriv --pdeathsig KILL \
        unshare "${user[@]}" "${spaces[@]}" "$BASH" "${script[@]}"
}

own_tmp() { # an empty /tmp, but for a checkout that lies in it
    case $checkout in
    /tmp/*) mkdir -p /run/old && mount --rbind /tmp /run/old ;;
    esac
    mount -t tmpfs -o mode=1777 kr-tmp /tmp || return 1
    case $checkout in
    /tmp/*) mkdir -p "$checkout" && mount --rbind "/run/old/${checkout#/tmp/}" "$checkout" &&
        umount -l /run/old ;;
    esac
}

raise_head() { # raise_head N
    local i
    trap 'exit 143' TERM INT HUP
    hostname head && mount -t tmpfs kr-run /run && mkdir -p "$CLUSTER_DIR" /run/lock &&
        own_tmp && mount -t tmpfs kr-shm /dev/shm || return 1
    { echo '127.0.0.1 localhost' && echo "$net.254 head" &&
        for ((i = 1; i <= $1; i++)); do echo "$net.$i n$i"; done; } >"$CLUSTER_DIR/hosts"
    mount --bind "$CLUSTER_DIR/hosts" /etc/hosts && ip link set lo up &&
        # an address of its own: else it takes that of a port, another one when hosts come and go,
        # and all hosts speak to nobody until they have noticed
        ip link add br0 address 02:00:00:00:00:fe type bridge stp_state 0 forward_delay 0 &&
        ip addr add "$net.254/24" dev br0 && ip link set br0 up
}

cluster() {
    local i
    [ -n "${CLUSTER:-}" ] || enter
    raise_head "$1" || { echo "Bail out! no head"; exit 1; }
    # clocks that count from a host's start differ, as between real ones
    if unshare --time --monotonic 1 --boottime 1 --fork nsenter --time -t $$ true 2>/dev/null; then
        : >"$CLUSTER_DIR/time"
    fi
    for ((i = 1; i <= $1; i++)); do boot "n$i" || { echo "Bail out! no n$i"; exit 1; }; done
    settle "${script[@]:1}"
}

settle() { # $work and the tools of tests/fault; Open MPI that starts and talks over the hosts
    TMPDIR=$CLUSTER_DIR
    # shellcheck source=tests/fault/lib.bash
    . "$checkout/tests/fault/lib.bash"
    export TMPDIR=/tmp
    unset OMPI_MCA_btl_vader_backing_directory
    export OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent=$rsh OMPI_MCA_plm_rsh_no_tree_spawn=1
    export OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,vader,self OMPI_MCA_mpi_yield_when_idle=1
    export OMPI_MCA_btl_tcp_if_include=$net.0/24 OMPI_MCA_oob_tcp_if_include=$net.0/24
    # a silent host is noticed after 5 s, not after 8 minutes
    export OMPI_MCA_oob_tcp_keepalive_time=2 OMPI_MCA_oob_tcp_keepalive_intvl=1
    export OMPI_MCA_oob_tcp_keepalive_probes=3
}

# --- hosts -----------------------------------------------------------------------------------

on() { "$rsh" -e "$@"; }
init_of() { cat "$CLUSTER_DIR/$1.init"; } # its first process, as seen from the head
alive() { kill -0 "$(init_of "$1")" 2>/dev/null; }

boot() {
    local outer init='' i own=() up=$((${1#n} * 100000))
    [ ! -e "$CLUSTER_DIR/time" ] || own=(--time --monotonic "$up" --boottime "$up")
    # the first process of a host only waits; bash also buries what others leave behind
    unshare "${own[@]}" "${spaces[@]}" "$BASH" -c 'sleep infinity & wait' init </dev/null >/dev/null 2>&1 &
    outer=$!
    for ((i = 0; i < 1000 * TIME_FACTOR; i++)); do
        read -r init _ 2>/dev/null <"/proc/$outer/task/$outer/children"
        [ -n "$init" ] && [ "$(cat "/proc/$init/comm" 2>/dev/null)" = bash ] && break
        sleep 0.01
    done
    echo "$init" >"$CLUSTER_DIR/$1.init"
    wire "$1" "$init" && on "$1" "$BASH" -c "checkout=$checkout; $(declare -f own_tmp)
        hostname $1 && own_tmp && mount -t tmpfs kr-shm /dev/shm"
}
wire() { # wire HOST INIT
    ip link del "v$1" 2>/dev/null
    rm -f "$CLUSTER_DIR/$1.unplugged"
    ip link add "v$1" type veth peer name eth0 netns "$2" && ip link set "v$1" master br0 up &&
        on "$1" sh -c "ip link set lo up && ip addr add $net.${1#n}/24 dev eth0 && ip link set eth0 up"
}

unplug() { ip link set "v$1" down && : >"$CLUSTER_DIR/$1.unplugged"; }
plug() { ip link set "v$1" up && rm -f "$CLUSTER_DIR/$1.unplugged"; }
split() {
    local host
    ip link show br1 >/dev/null 2>&1 || { ip link add br1 type bridge stp_state 0 forward_delay 0 && ip link set br1 up; }
    for host; do ip link set "v$host" master br1 && : >"$CLUSTER_DIR/$host.unplugged"; done
}
rejoin() {
    local host
    for host; do ip link set "v$host" master br0 && rm -f "$CLUSTER_DIR/$host.unplugged"; done
}
crash() { kill -KILL "$(init_of "$1")"; }
power_off() { unplug "$1" && crash "$1"; }

filter() { # filter HOST HOOK RULE
    on "$1" nft -f - <<<"table inet kr { chain c { type filter hook $2 priority 0; $3; }; }"
}
unmute() { on "$1" nft flush ruleset; }
mute() { filter "$1" output 'oifname eth0 drop'; }
loss() {
    unmute "$1" || return 1
    [ "$2" -eq 0 ] || filter "$1" input "iifname eth0 numgen random mod 100 <= $(($2 - 1)) drop"
}
throttle() {
    if [ "$2" = 0 ]; then on "$1" tc qdisc del dev eth0 root 2>/dev/null; else
        on "$1" tc qdisc replace dev eth0 root tbf rate "$2" burst 16kb latency 100ms 2>/dev/null
    fi
}
delay() {
    if [ "$2" -eq 0 ]; then on "$1" tc qdisc del dev eth0 root 2>/dev/null; else
        on "$1" tc qdisc replace dev eth0 root netem delay "$2ms" 2>/dev/null
    fi
}

# --- time --------------------------------------------------------------------------------------

within() { # within SECONDS COMMAND...
    local end=$((${EPOCHREALTIME/[.,]/} + $1 * TIME_FACTOR * 1000000))
    shift
    until "$@"; do
        [ "${EPOCHREALTIME/[.,]/}" -lt "$end" ] || return 1
        sleep 0.05
    done
}
hostfile() { # hostfile SLOTS HOST... - a file of that contents; its name
    local slots=$1 host
    shift
    for host; do echo "$host slots=$slots"; done >"$work/hosts"
    echo "$work/hosts"
}
programs() { # programs HOST - those of ours and of Open MPI that run there
    on "$1" pgrep -fa '[k]ilorank|[o]rted'
}
idle() { ! alive "$1" || [ -z "$(programs "$1")" ]; }
