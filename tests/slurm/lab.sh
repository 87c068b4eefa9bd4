#!/bin/bash
# A real Slurm cluster on the machines that tests/nodes/nodes.sh makes: same commands, and the nodes are up at once.
# Needs slurmctld, slurmd, slurm-client and munge as well; no systemd, no GPU. The login node is outside.
# LAB_CGROUP is the name of the cgroup for all of its processes.
CPUS=${LAB_CPUS:-4} MEMORY_MIB=${LAB_MEMORY_MIB:-6000} GPUS=2
# Slurm knows a job's processes by a freezer, as it does in real clusters, where the machine has them (cgroup v1). Else by
# their parents: then `scancel` kills all of them at once, and a job cannot save.
FREEZER=/sys/fs/cgroup/freezer
export SLURM_CONF=/run/lab/etc/slurm.conf

outside() {
    if [ -w $FREEZER ]; then
        mkdir "$FREEZER/$LAB_CGROUP"
        mount --bind "$FREEZER/$LAB_CGROUP" $FREEZER
    fi
    chmod 755 $LAB # munged insists
    write_config "$1"
    (umask 077 && head -c 128 /dev/urandom > $LAB/run/munge.key)
    munged --key-file=$LAB/run/munge.key --socket=$LAB/run/munge.sock --pid-file=$LAB/run/munged.pid \
        --log-file=$LAB/log/munged.log --seed-file=$LAB/run/munged.seed
    slurmctld -c
    for i in $(seq "$1"); do up_node "node$i"; done
    for _ in $(seq 120); do
        [ "$(num_idle)" != "$1" ] || return 0
        sleep 0.1
    done
    tail -n 5 $LAB/log/*.log >&2
    exit 1
}

# The node stays up when slurmd ends.
inside() {
    if [ -w $FREEZER ]; then
        mkdir -p "$FREEZER/$1"
        mount --bind "$FREEZER/$1" $FREEZER
    fi
    mkdir -p "$LAB/spool/$1"
    slurmd -D -N "$1" || true
}

num_idle() { sinfo -h -N -o '%N %t' 2> /dev/null | sort -u | grep -c ' idle$' || true; }

write_config() {
    local tracking=linuxproc
    [ ! -w $FREEZER ] || tracking=cgroup
    mkdir -p $LAB/{etc,run,log,state,spool,dev}
    cat > $SLURM_CONF <<CONF
ClusterName=lab
SlurmctldHost=outside($NET.1)
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
NodeName=node[1-$1] NodeAddr=$NET.[11-$((10 + $1))] CPUs=$CPUS RealMemory=$MEMORY_MIB Gres=gpu:$GPUS State=UNKNOWN
PartitionName=all Nodes=node[1-$1] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=short Nodes=node[1-$1] MaxTime=5 State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes=node[1-$1] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
    printf 'CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n' > $LAB/etc/cgroup.conf
    # GPUs for Slurm to count: device files that are /dev/null.
    for i in $(seq 0 $((GPUS - 1))); do mknod $LAB/dev/gpu"$i" c 1 3; done
    echo "NodeName=node[1-$1] Name=gpu File=$LAB/dev/gpu[0-$((GPUS - 1))]" > $LAB/etc/gres.conf
}

source "$(dirname "$0")/../nodes/nodes.sh"
