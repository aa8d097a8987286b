package disk

import _ "embed"

// suite and packages are what the guest is made of. dbus is how crun and the
// kubelet ask systemd for cgroups; busybox is what the initramfs has. A container
// is several calls of its runtime, and crun is done long before a runtime in Go
// has started under emulation.
const suite = "trixie"

var packages = []string{
	"linux-image-amd64", "systemd", "systemd-sysv", "udev", "dbus",
	"iproute2", "iputils-ping", "pciutils", "kmod", "nftables", "busybox-static", "cpio", "xz-utils",
	"containerd", "crun", "containernetworking-plugins",
}

// Under emulation a boot costs what it does: units that nothing of the lab needs
// are masked, files that the first boot would make are called made, of the
// modules only those are left that the machine can have, unpacked, and the
// initramfs is one script.
var (
	//go:embed finish.sh
	finish string // makes that of the root folder, on the host
	//go:embed init.sh
	initScript string // is the initramfs' init
)

// early are files that must be there before packages are configured.
var early = map[string]string{
	"etc/dpkg/dpkg.cfg.d/lab":                                    "path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\npath-exclude=/usr/share/misc/pci.ids*\n",
	"etc/systemd/system-preset/00-lab.preset":                    "enable lab.service\nenable lab-share.service\nenable lab-console.service\ndisable *\n",
	"etc/machine-id":                                             "6e756d616c616e656c61620000000001\n", // without one each boot would be the first
	"etc/hostname":                                               "vm\n",
	"etc/hosts":                                                  "127.0.0.1 localhost vm\n",
	"etc/fstab":                                                  "",
	"etc/systemd/system.conf.d/lab.conf":                         "[Manager]\nDefaultTimeoutStopSec=10s\n",
	"etc/systemd/journald.conf.d/lab.conf":                       "[Journal]\nStorage=volatile\n",
	"etc/systemd/system/lab-share.service":                       shareUnit,
	"etc/systemd/system/lab.service":                             labUnit,
	"etc/systemd/system/lab-console.service":                     consoleUnit,
	"etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": triggerUnit,
	"init": initScript,
}

// What the machine shares is below /lab. The agent is the program that the host
// put there, which makes the file "up" once it is started; a shell has none.
const shareUnit = `[Unit]
Description=What the host shares
DefaultDependencies=no
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
After=local-fs.target
ConditionPathExists=/lab/agent
[Service]
ExecStart=/lab/agent agent /lab/token
ExecStartPost=/bin/touch /lab/up
KillMode=process
OOMScoreAdjust=-900
LimitNOFILE=65536
[Install]
WantedBy=multi-user.target
`

const consoleUnit = `[Unit]
Description=A shell on the console
After=multi-user.target
ConditionPathExists=!/lab/agent
[Service]
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200 ttyS0 $TERM
Type=idle
Restart=always
UtmpIdentifier=ttyS0
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS0
TTYReset=yes
TTYVHangup=yes
[Install]
WantedBy=multi-user.target
`

// Of some hundred devices these have drivers to load or names to get.
const triggerUnit = `[Service]
ExecStart=
ExecStart=/bin/udevadm trigger --type=all --action=add --subsystem-match=pci --subsystem-match=virtio --subsystem-match=net --subsystem-match=block --subsystem-match=vfio
`
