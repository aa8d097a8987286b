package disk

// suite and packages are what the guest is made of. initramfs-tools comes with
// the kernel; dbus is how runc and the kubelet ask systemd for cgroups.
const suite = "trixie"

var packages = []string{
	"linux-image-amd64", "systemd", "systemd-sysv", "udev", "dbus",
	"iproute2", "iputils-ping", "pciutils", "kmod", "nftables",
	"containerd", "runc", "containernetworking-plugins",
}

// early are files that must be there before packages are configured. Only what
// mounts the root goes into the initramfs: less to unpack under emulation.
var early = map[string]string{
	"etc/initramfs-tools/conf.d/lab":          "MODULES=list\nCOMPRESS=zstd\n",
	"usr/share/initramfs-tools/modules.d/lab": "virtio_pci\nvirtio_blk\next4\n",
	"etc/dpkg/dpkg.cfg.d/lab":                 "path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n",
	"etc/systemd/system-preset/00-lab.preset": "enable lab.service\nenable lab-share.service\nenable systemd-networkd.service\ndisable *\n",
	"etc/systemd/network/10-user.network":     "[Match]\nDriver=virtio_net\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
	"etc/modules-load.d/lab.conf":             "9pnet_virtio\n",
	"etc/machine-id":                          "6e756d616c616e656c61620000000001\n", // without one each boot would be the first
	// Nothing of the machine needs them, and each costs a second under emulation.
	"etc/modprobe.d/lab.conf":                             "blacklist i2c_i801\nblacklist lpc_ich\nblacklist pcspkr\nblacklist psmouse\nblacklist iTCO_wdt\nblacklist ahci\n",
	"etc/hostname":                                        "vm\n",
	"etc/hosts":                                           "127.0.0.1 localhost vm\n",
	"etc/fstab":                                           "/dev/vda / ext4 defaults,noatime 0 1\n",
	"etc/systemd/system.conf.d/lab.conf":                  "[Manager]\nDefaultTimeoutStopSec=10s\n",
	"etc/systemd/journald.conf.d/lab.conf":                "[Journal]\nStorage=volatile\n",
	"etc/systemd/system/lab-share.service":                shareUnit,
	"etc/systemd/system/lab.service":                      labUnit,
	"etc/systemd/system/serial-getty@.service.d/lab.conf": "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200 - $TERM\n",
}

// What the machine shares is below /lab. The agent is the program that the host
// put there; a shell has none.
const shareUnit = `[Unit]
Description=What the host shares
DefaultDependencies=no
After=systemd-remount-fs.service systemd-modules-load.service
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mkdir -p /lab
ExecStart=/bin/mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none share /lab
[Install]
WantedBy=local-fs.target
`

const labUnit = `[Unit]
Description=Runs what the host asks for
After=network.target local-fs.target
ConditionPathExists=/lab/agent
[Service]
ExecStart=/lab/agent agent /lab/token
KillMode=process
OOMScoreAdjust=-900
LimitNOFILE=65536
[Install]
WantedBy=multi-user.target
`
