#!/bin/busybox sh
# The initramfs: mounts the root and brings up the machine's way to its host,
# before anything else takes the CPUs.
set -e
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
while read -r module; do insmod "/modules/$module"; done </modules/order
until [ -b /dev/vda ]; do sleep 0.05; done
mount -t ext4 -o noatime /dev/vda /root
mount -t sysfs sys /sys
for net in /sys/bus/virtio/drivers/virtio_net/virtio*/net/*; do
	ip link set "${net##*/}" name user
done
ip link set lo up
ip link set user up
ip addr add 10.0.2.15/24 dev user
ip route add default via 10.0.2.2
umount /sys
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
