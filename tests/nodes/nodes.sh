#!/bin/bash
# Machines on a network of their own, on one Linux machine, for tests. Needs root and iproute2. `nodes.py` starts it:
#
#   unshare --net --uts --ipc --pid --mount --fork --mount-proc --kill-child nodes.sh run FOLDER NUM_NODES SHARED…
#       prints "ready" and lives until its standard input is closed. The nodes are node1, node2 …, at NET.11, NET.12 …,
#       and the machine beside them "outside", at NET.1. They see the SHARED folders, and have a /tmp of their own.
#   nsenter --target PID --all -- nodes.sh …      PID: the child of that unshare
#       up-node NAME              switches a node on
#       kill-node NAME            every process of the node dies at once, as by a power cut
#       on-node NAME COMMAND…     runs a command there
#
# Another script can source this one. Of its own it may have `outside NUM_NODES`, which runs beside the nodes when the
# network is there, and `inside NAME`, which a node runs when it is switched on.
#
# It is a PID, network and mount namespace: when its first process ends, however that comes, the kernel ends all of its
# processes, and nothing is left, so two of them never meet. Each node is a set of such namespaces inside of it: an own
# address, host name, /tmp, /dev/shm and processes.
set -euo pipefail
LAB=/run/lab # FOLDER as it is seen here: sockets have room for 107 bytes
NET=10.77.0 SHM=2g

up_node() {
    local node=$1 number=${1#node}
    ip link del "port$number" 2> /dev/null || true
    unshare --net --uts --ipc --pid --mount --fork --mount-proc --kill-child \
        "$0" node "$node" > "$LAB/$node.log" 2>&1 < /dev/null &
    echo $! > "$LAB/$node.pid"
    # The node waits for its network; its namespace is that of unshare's child.
    until init=$(pgrep --parent $!); do sleep 0.02; done
    ip link add "port$number" type veth peer name eth0 netns "$init"
    ip link set "port$number" master bridge up
    until [ -e "$LAB/$node.up" ]; do sleep 0.02; done
}

kill_node() {
    local pid
    pid=$(cat "$LAB/$1.pid")
    rm "$LAB/$1.up"
    # The node's first process: the kernel ends all others with it.
    kill -KILL "$(pgrep --parent "$pid")"
    while [ -e "/proc/$pid" ]; do sleep 0.05; done
}

on_node() {
    exec nsenter --target "$(pgrep --parent "$(cat "$LAB/$1.pid")")" --all -- "${@:2}"
}

# Runs as the first process of a node.
node() {
    hostname "$1"
    until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
    ip link set lo up
    ip addr add "$NET.$((10 + ${1#node}))/24" dev eth0
    ip link set eth0 up
    mount -t tmpfs -o "size=$SHM,mode=1777" tmpfs /dev/shm
    own_tmp
    touch "$LAB/$1.up"
    ! declare -F inside > /dev/null || inside "$1"
    sleep infinity
}

# An empty /tmp; the shared folders that lie below it are seen through.
own_tmp() {
    local folder i=0
    mapfile -t shared < $LAB/shared
    mkdir -p /run/seen
    for folder in "${shared[@]}"; do
        mkdir -p /run/seen/$i
        mount --bind "$folder" /run/seen/$i
        i=$((i + 1))
    done
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    i=0
    for folder in "${shared[@]}"; do
        [[ $folder != /tmp/* ]] || { mkdir -p "$folder"; mount --bind /run/seen/$i "$folder"; }
        i=$((i + 1))
    done
}

run() {
    local folder=$1 nodes=$2
    shift 2
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir $LAB
    mount --bind "$folder" $LAB
    printf '%s\n' "$@" > $LAB/shared
    printf '127.0.0.1 localhost\n%s.1 outside\n' $NET > $LAB/hosts
    for i in $(seq "$nodes"); do echo "$NET.$((10 + i)) node$i" >> $LAB/hosts; done
    mount --bind $LAB/hosts /etc/hosts
    # No name server can be reached from here.
    sed 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf > $LAB/nsswitch.conf
    mount --bind $LAB/nsswitch.conf /etc/nsswitch.conf
    hostname outside
    ip link set lo up
    ip link add bridge type bridge
    ip addr add $NET.1/24 dev bridge
    ip link set bridge up
    ! declare -F outside > /dev/null || outside "$nodes"
    echo ready
    read -r _ || true
}

case $1 in
    run) run "${@:2}" ;;
    node) node "$2" ;;
    kill-node) kill_node "$2" ;;
    up-node) up_node "$2" ;;
    on-node) on_node "${@:2}" ;;
esac
