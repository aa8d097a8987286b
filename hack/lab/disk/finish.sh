#!/bin/sh
# Finishes the guest's root folder, which is the first argument, and leaves its
# kernel and initramfs in /boot.
set -eu
cd "$1"
version=$(ls lib/modules)

# Modules: what the machine and a node on it can have, and unpacked, for xz takes
# a second a module under emulation.
cd "lib/modules/$version/kernel"
mkdir ../kept
for keep in fs/ext4 fs/jbd2 fs/mbcache.ko.xz fs/overlayfs fs/9p fs/netfs fs/autofs fs/fuse net lib crypto \
	drivers/block/virtio_blk.ko.xz drivers/net/virtio_net.ko.xz drivers/net/net_failover.ko.xz drivers/net/veth.ko.xz drivers/net/dummy.ko.xz drivers/net/tun.ko.xz \
	drivers/net/ethernet/intel drivers/virtio drivers/char/hw_random drivers/vfio drivers/iommu virt drivers/dca drivers/i2c/algos drivers/ptp drivers/pps; do
	[ -e "$keep" ] || continue
	mkdir -p "$(dirname "../kept/$keep")"
	mv "$keep" "../kept/$keep"
done
cd ..
rm -r kernel
mv kept kernel
chroot "$1" find "/lib/modules/$version/kernel" -name '*.xz' -exec xz -d -T0 '{}' +
chroot "$1" depmod "$version"

# Units that nothing of the lab needs.
for unit in modprobe@.service sys-kernel-config.mount sys-fs-fuse-connections.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
	dev-hugepages.mount dev-mqueue.mount run-lock.mount tmp.mount systemd-random-seed.service systemd-udev-load-credentials.service \
	systemd-network-generator.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service systemd-tmpfiles-clean.timer \
	kmod-static-nodes.service systemd-remount-fs.service systemd-logind.service systemd-rfkill.socket systemd-user-sessions.service \
	systemd-modules-load.service systemd-journal-flush.service getty.target remote-fs.target systemd-pcrphase.service; do
	ln -sf /dev/null "$1/etc/systemd/system/$unit"
done
chroot "$1" systemctl --quiet preset-all
chroot "$1" systemctl --quiet set-default multi-user.target
chroot "$1" ldconfig
chroot "$1" journalctl --update-catalog
chroot "$1" passwd -d root

# The initramfs: busybox, the modules that mount the root, the link to the host
# and the shared folder, each after those that it needs, and the script.
ram=$1/tmp/initramfs
mkdir -p "$ram/bin" "$ram/modules" "$ram/dev" "$ram/proc" "$ram/sys" "$ram/root"
mv "$1/init" "$ram/init"
chmod 755 "$ram/init"
cp "$1/bin/busybox" "$ram/bin/busybox"
for applet in sh mount umount insmod sleep ip switch_root; do ln -s busybox "$ram/bin/$applet"; done
for module in virtio_blk ext4 virtio_net 9pnet_virtio 9p; do
	chroot "$1" modprobe --set-version "$version" --show-depends "$module"
done | while read -r kind path _; do
	[ "$kind" = insmod ] || continue
	name=${path##*/}
	[ ! -e "$ram/modules/$name" ] || continue
	cp "$1$path" "$ram/modules/$name"
	echo "$name" >>"$ram/modules/order"
done
chroot "$1" sh -c 'cd /tmp/initramfs && find . | cpio --quiet -o -H newc' >"$1/boot/initramfs"
rm -r "$ram"
touch "$1/etc/.updated" "$1/var/.updated" # later than /usr: nothing is left for the first boot
