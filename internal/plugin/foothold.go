package plugin

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

// settleTime is how long our socket must be gone, and the kubelet's not, before
// the stream is given up: whoever wipes the folder may remove ours first, and
// then there is no kubelet to register with.
const settleTime = 500 * time.Millisecond

// identity is the kubelet's socket as one kubelet start made it. An inode
// number alone may be given again at once.
type identity struct{ info fs.FileInfo }

// kubeletIdentity is false where there is no kubelet socket.
func (f *folder) kubeletIdentity() (identity, bool) {
	info, err := os.Stat(f.kubelet())
	return identity{info}, err == nil
}

func (a identity) same(b identity) bool {
	return os.SameFile(a.info, b.info) && a.info.ModTime().Equal(b.info.ModTime())
}

// foothold is a session's place in the folder: its own socket, beside the
// socket of the kubelet that it registers with.
type foothold struct {
	folder  *folder
	own     string
	kubelet identity
	log     *slog.Logger

	gone    time.Time        // since when our socket is gone beside the kubelet's
	settled <-chan time.Time // when to look again
	cutOff  bool
}

// lost tells that the kubelet started anew: it made its own socket anew, or
// removed ours, as it does with all sockets when it starts (devicemanager
// CleanupPluginDirectory). With no kubelet there to register with nothing is
// lost yet: a live stream is worth more than a socket file.
func (f *foothold) lost() bool {
	now, there := f.folder.kubeletIdentity()
	if there && !now.same(f.kubelet) {
		return true
	}
	_, err := os.Lstat(f.own)
	gone := errors.Is(err, fs.ErrNotExist)
	if gone && !there && !f.cutOff {
		f.log.Warn("the plugin's socket was removed and there is no kubelet's; the stream stays open until a kubelet comes back", "socket", f.own)
	}
	f.cutOff = gone && !there
	if !gone || !there {
		f.gone, f.settled = time.Time{}, nil
		return false
	}
	if f.gone.IsZero() {
		f.gone, f.settled = time.Now(), time.After(settleTime)
	}
	return time.Since(f.gone) >= settleTime
}
