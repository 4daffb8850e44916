#!/bin/busybox sh
# The initrd of the references: the disk's modules, the root, and on.
for kind in proc sysfs devtmpfs; do
    case $kind in proc) place=/proc ;; sysfs) place=/sys ;; *) place=/dev ;; esac
    /bin/busybox mount -t $kind $kind $place
done
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
until /bin/busybox mount -t ext4 /dev/vda /mnt 2>/dev/null; do /bin/busybox usleep 10000; done
for place in proc sys dev; do /bin/busybox mount -o move /$place /mnt/$place; done
exec /bin/busybox switch_root /mnt /init.sh
