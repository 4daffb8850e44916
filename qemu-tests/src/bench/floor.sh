#!/bin/bash
# PID 1 of the floor: what dockerd needs, one thing after the other, and nothing else.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in overlay bridge br_netfilter veth nf_tables nft_compat nft_chain_nat xt_MASQUERADE xt_addrtype \
    xt_conntrack nf_nat xt_nat virtio_net; do
    modprobe $module
done
for interface in /sys/class/net/*; do
    ip link set "${interface##*/}" up
done
echo 1 >/proc/sys/net/ipv4/ip_forward
dockerd >/run/dockerd.log 2>&1 &
exec >/dev/console 2>&1
. /ask.sh
cat /run/dockerd.log
while :; do sleep 1000; done
