#!/bin/sh
# Makes a node of the guest: run once, its disk keeps it over reboots. What it
# needs lies beside it.
set -eu
step() { echo "$(cut -d' ' -f1 /proc/uptime) $*"; }
step files
mkdir -p /node
echo "/dev/vdb /node ext4 ro 0 0" >>/etc/fstab
mount /node
ln -s /node/vmguest /usr/lib/cni/vmguest
ln -s /node/numalane-plugin /usr/local/bin/numalane-plugin
cd /lab/node
install -D -m 644 containerd.toml /etc/containerd/config.toml
install -D -m 644 kubelet.yaml /etc/kubernetes/kubelet.yaml
install -D -m 600 kubeconfig /etc/kubernetes/kubeconfig
install -D -m 644 network.conflist /etc/cni/net.d/10-vmguest.conflist
install -D -m 644 nftables.conf /etc/nftables.conf
install -m 644 kubelet.service vfs.service /etc/systemd/system/
install -D -m 644 containerd.conf /etc/systemd/system/containerd.service.d/vm.conf
install -D -m 755 vfs.sh /usr/local/sbin/vfs.sh
mkdir -p /etc/vfs /var/lib/kubelet
step services
systemctl daemon-reload
systemctl enable --quiet nftables containerd kubelet vfs
systemctl start nftables containerd
systemctl start --no-block kubelet
for image in /node/*.tar; do
	step "$image"
	ctr -n k8s.io images import "$image" >/dev/null
done
step done
