# ssh.bash - an sshd on each host of lib.bash, with keys of the test's own.
#
# After `cluster N`:
#
#   ssh_needs            what is missing; empty: nothing
#   ssh_up HOST...       keys, and sshd on these hosts; ssh on the head knows them from there on
#   forget_host_key HOST ssh on the head does not know the host
# shellcheck shell=bash disable=SC2154  # $work is of lib.bash

ssh_needs() {
    grep -q '^ *0 *0 *4294967295$' /proc/self/uid_map || echo "not root"
    [ -x /usr/sbin/sshd ] && command -v ssh ssh-keygen >/dev/null || echo "no sshd, ssh or ssh-keygen"
}

new_key() { ssh-keygen -q -t ed25519 -N '' -f "$1"; }

ssh_up() {
    local host
    keys=$work/keys
    mkdir -p "$keys" /run/sshd && new_key "$keys/user" || return 1
    cat >"$keys/ssh_config" <<END
IdentityFile $keys/user
IdentitiesOnly yes
UserKnownHostsFile $keys/known
StrictHostKeyChecking yes
END
    cat >"$keys/sshd_config" <<END
AuthorizedKeysFile $keys/user.pub
StrictModes no
UsePAM no
PidFile none
END
    # nobody else's mount: this is the head's own view of the file system
    mount --bind "$keys/ssh_config" /etc/ssh/ssh_config || return 1
    for host; do sshd_on "$host" || return 1; done
}
sshd_on() {
    new_key "$keys/host.$1" && echo "$1 $(cut -d' ' -f1,2 "$keys/host.$1.pub")" >>"$keys/known" &&
        on "$1" /usr/sbin/sshd -f "$keys/sshd_config" -h "$keys/host.$1" -E "$keys/log.$1"
}
forget_host_key() { sed -i "/^$1 /d" "$keys/known"; }
