#!/bin/bash
# A real Slurm cluster of several "nodes" on one Linux machine, for tests. Needs root, slurmctld, slurmd, slurm-client,
# munge and iproute2; no systemd, no GPU. `lab.py` starts it:
#
#   unshare --net --uts --ipc --pid --mount --fork --mount-proc --kill-child lab.sh run FOLDER CGROUP NUM_NODES SHARED…
#       prints "ready" and lives until its standard input is closed. FOLDER takes config and logs; CGROUP is the name of
#       its cgroup; the nodes see the SHARED folders, and have a /tmp of their own.
#   nsenter --target PID --all -- lab.sh …      PID: the child of that unshare
#       kill-node NAME            every process of the node dies at once, as by a power cut
#       up-node NAME              boots it again
#       on-node NAME COMMAND…     runs a command there
#
# The lab is a PID, network and mount namespace: when its first process ends, however that comes, the kernel ends all of
# its processes, and nothing is left, so two labs never meet. Each node is a set of such namespaces inside of it: an own
# address, host name, /tmp, /dev/shm and processes.
set -euo pipefail
LAB=/run/lab # the folder as the lab sees it: sockets have room for 107 bytes
NET=10.77.0
CPUS=${LAB_CPUS:-4} MEMORY_MIB=${LAB_MEMORY_MIB:-6000} GPUS=2 SHM=2g
# Slurm knows a job's processes by a freezer, as it does in real clusters, where the machine has them (cgroup v1). Else by
# their parents: then `scancel` kills all of them at once, and a job cannot save.
FREEZER=/sys/fs/cgroup/freezer
export SLURM_CONF=$LAB/etc/slurm.conf

write_config() {
    local node nodes=$1 tracking=linuxproc
    [ ! -w $FREEZER ] || tracking=cgroup
    mkdir -p $LAB/{etc,run,log,state,spool,dev}
    cat > $SLURM_CONF <<CONF
ClusterName=lab
SlurmctldHost=ctl($NET.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$LAB/run/munge.sock,cred_expire=5
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool/%n
SlurmctldPidFile=$LAB/run/slurmctld.pid
SlurmdPidFile=$LAB/run/slurmd.%n.pid
SlurmctldLogFile=$LAB/log/slurmctld.log
SlurmdLogFile=$LAB/log/slurmd.%n.log
ProctrackType=proctrack/$tracking
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$LAB/log/jobcomp.txt
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=5
MessageTimeout=5
TCPTimeout=2
InactiveLimit=0
KillWait=20
MinJobAge=600
JobRequeue=1
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
CONF
    printf 'CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n' > $LAB/etc/cgroup.conf
    # GPUs for Slurm to count: device files that are /dev/null.
    for i in $(seq 0 $((GPUS - 1))); do mknod $LAB/dev/gpu"$i" c 1 3; done
    echo "NodeName=node[1-$nodes] Name=gpu File=$LAB/dev/gpu[0-$((GPUS - 1))]" > $LAB/etc/gres.conf
    printf '127.0.0.1 localhost\n%s.1 ctl\n' $NET > $LAB/etc/hosts
    for i in $(seq "$nodes"); do
        node="NodeName=node$i NodeAddr=$NET.$((10 + i)) CPUs=$CPUS RealMemory=$MEMORY_MIB Gres=gpu:$GPUS"
        echo "$node State=UNKNOWN" >> $SLURM_CONF
        echo "$NET.$((10 + i)) node$i" >> $LAB/etc/hosts
    done
    cat >> $SLURM_CONF <<CONF
PartitionName=all Nodes=node[1-$nodes] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes=node[1-$nodes] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
    # No name server can be reached from here.
    sed 's/^hosts:.*/hosts: files/' /etc/nsswitch.conf > $LAB/etc/nsswitch.conf
}

up_node() {
    local node=$1 number=${1#node}
    ip link del "port$number" 2> /dev/null || true
    unshare --net --uts --ipc --pid --mount --fork --mount-proc --kill-child \
        "$0" node "$node" > "$LAB/log/$node.log" 2>&1 < /dev/null &
    echo $! > "$LAB/run/$node.pid"
    # The node waits for its network; its namespace is that of unshare's child.
    until init=$(pgrep --parent $!); do sleep 0.02; done
    ip link add "port$number" type veth peer name eth0 netns "$init"
    ip link set "port$number" master bridge up
}

kill_node() {
    local pid
    pid=$(cat "$LAB/run/$1.pid")
    # The node's first process: the kernel ends all others with it.
    kill -KILL "$(pgrep --parent "$pid")"
    while [ -e "/proc/$pid" ]; do sleep 0.05; done
}

on_node() {
    exec nsenter --target "$(pgrep --parent "$(cat "$LAB/run/$1.pid")")" --all -- "${@:2}"
}

# Runs as the first process of a node: network, host name and folders, then slurmd. The node stays up without slurmd.
node() {
    local number=${1#node}
    hostname "$1"
    until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
    ip link set lo up
    ip addr add "$NET.$((10 + number))/24" dev eth0
    ip link set eth0 up
    mount -t tmpfs -o "size=$SHM,mode=1777" tmpfs /dev/shm
    own_tmp
    if [ -w $FREEZER ]; then
        mkdir -p "$FREEZER/$1"
        mount --bind "$FREEZER/$1" $FREEZER
    fi
    mkdir -p "$LAB/spool/$1"
    slurmd -D -N "$1"
    sleep infinity
}

# An empty /tmp; the shared folders that lie below it are seen through.
own_tmp() {
    local folder i=0
    mapfile -t shared < $LAB/etc/shared
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
    local folder=$1 cgroup=$2 nodes=$3
    shift 3
    if [ -w $FREEZER ]; then
        mkdir "$FREEZER/$cgroup"
        mount --bind "$FREEZER/$cgroup" $FREEZER
    fi
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir $LAB
    mount --bind "$folder" $LAB
    chmod 755 $LAB # munged insists
    write_config "$nodes"
    printf '%s\n' "$@" > $LAB/etc/shared
    mount --bind $LAB/etc/hosts /etc/hosts
    mount --bind $LAB/etc/nsswitch.conf /etc/nsswitch.conf
    hostname ctl
    ip link set lo up
    ip link add bridge type bridge
    ip addr add $NET.1/24 dev bridge
    ip link set bridge up
    (umask 077 && head -c 128 /dev/urandom > $LAB/run/munge.key)
    munged --key-file=$LAB/run/munge.key --socket=$LAB/run/munge.sock --pid-file=$LAB/run/munged.pid \
        --log-file=$LAB/log/munged.log --seed-file=$LAB/run/munged.seed
    slurmctld -c
    for i in $(seq "$nodes"); do up_node "node$i"; done
    for _ in $(seq 120); do
        [ "$(sinfo -h -N -o '%N %t' 2> /dev/null | sort -u | grep -c ' idle$')" != "$nodes" ] || break
        sleep 0.1
    done
    [ "$(sinfo -h -N -o '%N %t' | sort -u | grep -c ' idle$')" = "$nodes" ] || {
        tail -n 5 $LAB/log/*.log >&2
        exit 1
    }
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
