package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// pluginDir is where the kubelet puts its device plugin socket: a constant of
// its code (pkg/apis/deviceplugin/v1beta1, DevicePluginPath).
const pluginDir = "/var/lib/kubelet/device-plugins"

// logDir holds the folder of container logs, a constant too (kubelet.go,
// ContainerLogsDir). The kubelet makes it, and prunes the links in it.
const logDir = "/var/log"

// seal leaves the process nothing of the host to write: of all that it sees,
// only the node's folder can be written, and a log folder of its own. The
// mounts are seen by this process alone, which must have a mount namespace of
// its own.
//
// A kubelet that runs as root makes, prunes and removes files of its host. The
// worst: where a runtime names no log file, and ours does not, removing a
// container removes all files of the working folder
// (pkg/kubelet/logs/container_log_manager.go, Clean).
func seal(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	work, temp := filepath.Join(root, "work"), filepath.Join(root, "tmp")
	for _, dir := range []string{pluginDir, work, temp} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", logDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount %s: %w", logDir, err)
	}
	for source, target := range map[string]string{root: root, filepath.Join(root, "dp"): pluginDir} {
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", source, target, err)
		}
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make all mounts read-only (needs Linux 5.12): %w", err)
	}
	for _, dir := range []string{root, pluginDir, logDir} {
		if err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("make %s writable: %w", dir, err)
		}
	}
	if err := os.Setenv("TMPDIR", temp); err != nil {
		return err
	}
	return os.Chdir(work)
}
