package storm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// watchesPerNode are the inotify instances of a node: the kubelet's three, the
// plugin's two. watchesElse are those of the control plane.
const watchesPerNode, watchesElse = 5, 5

// preflight tells that root has too few inotify instances left: a kubelet or
// plugin that gets none fails in ways that do not say so.
func preflight(nodes int) error {
	want := nodes*watchesPerNode + watchesElse
	for have := range want {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("%d nodes take %d inotify instances, and only %d are left (%w): end what else runs, raise fs.inotify.max_user_instances, or take fewer nodes", nodes, want, have, err)
		}
		defer unix.Close(fd)
	}
	return nil
}
