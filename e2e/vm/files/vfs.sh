#!/bin/sh
# Makes the VFs that /etc/vfs asks for: a file a PF, named after its PCI address,
# with one line: how many, and which of them are for vfio-pci ("5 3,4"). The PF
# is brought up first: else its VFs wait for a reset that does not come. While the
# machine boots its interface may get another name at any moment.
set -eu
for want in /etc/vfs/*; do
	[ -e "$want" ] || continue
	pf=/sys/bus/pci/devices/${want##*/}
	read -r count vfio <"$want" || :
	until ip link set "$(ls "$pf/net")" up; do sleep 0.1; done 2>/dev/null
	[ "$(cat "$pf/sriov_numvfs")" = "$count" ] || { echo 0 >"$pf/sriov_numvfs"; echo "$count" >"$pf/sriov_numvfs"; }
	[ -z "${vfio:-}" ] || modprobe vfio-pci
	for i in $(echo "${vfio:-}" | tr , ' '); do
		vf=$(readlink -f "$pf/virtfn$i")
		echo vfio-pci >"$vf/driver_override"
		[ ! -e "$vf/driver" ] || echo "${vf##*/}" >"$vf/driver/unbind"
		echo "${vf##*/}" >/sys/bus/pci/drivers_probe
	done
done
