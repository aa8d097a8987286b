package plugin

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func testFolder(t *testing.T) *folder {
	return &folder{path: t.TempDir(), token: "test", changes: newCell(struct{}{}), log: slog.New(slog.DiscardHandler)}
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// renew makes the kubelet's socket anew, at another time than before.
func renew(t *testing.T, f *folder, at time.Time) {
	t.Helper()
	touch(t, f.kubelet())
	if err := os.Chtimes(f.kubelet(), at, at); err != nil {
		t.Fatal(err)
	}
}

func TestFoothold(t *testing.T) {
	type step struct {
		do    func(t *testing.T, f *foothold)
		after time.Duration
		lost  bool
	}
	removeOwn := func(t *testing.T, f *foothold) { remove(t, f.own) }
	removeKubelet := func(t *testing.T, f *foothold) { remove(t, f.folder.kubelet()) }
	renewKubelet := func(t *testing.T, f *foothold) { renew(t, f.folder, time.Unix(2, 0)) }
	cases := map[string][]step{
		"nothing happens":          {{after: time.Hour}},
		"kubelet's socket renewed": {{do: renewKubelet, lost: true}},
		"kubelet's socket removed": {{do: removeKubelet, after: time.Hour}},
		"own socket removed":       {{do: removeOwn}, {after: settleTime - 1}, {after: 1, lost: true}},
		"folder wiped, ours first": {{do: removeOwn}, {do: removeKubelet}, {after: time.Hour}, {do: renewKubelet, lost: true}},
		"folder wiped, ours last":  {{do: removeKubelet}, {do: removeOwn}, {after: time.Hour}, {do: renewKubelet, lost: true}},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				folder := testFolder(t)
				renew(t, folder, time.Unix(1, 0))
				id, _ := folder.kubeletIdentity()
				f := &foothold{folder: folder, own: folder.newSocket("intel.com/a"), kubelet: id, log: folder.log}
				touch(t, f.own)
				if f.lost() {
					t.Fatal("lost at the start")
				}
				for i, s := range steps {
					if s.do != nil {
						s.do(t, f)
					}
					f.lost() // the change itself is seen at once
					time.Sleep(s.after)
					if got := f.lost(); got != s.lost {
						t.Errorf("step %d: lost is %t, want %t", i, got, s.lost)
					}
				}
			})
		})
	}
}

func TestPause(t *testing.T) {
	cases := map[string]struct {
		renewAfter time.Duration // 0: never
		ctx        time.Duration
		want       time.Duration
		anew       bool
	}{
		"nothing happens":          {ctx: time.Hour, want: lastRetry},
		"kubelet restarts at once": {renewAfter: 1, ctx: time.Hour, want: firstRetry, anew: true},
		"kubelet restarts later":   {renewAfter: 3 * time.Second, ctx: time.Hour, want: 3 * time.Second, anew: true},
		"stopped":                  {ctx: time.Second, want: time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				folder := testFolder(t)
				renew(t, folder, time.Unix(1, 0))
				id, _ := folder.kubeletIdentity()
				ctx, cancel := context.WithTimeout(t.Context(), c.ctx)
				defer cancel()
				if c.renewAfter > 0 {
					go func() {
						time.Sleep(c.renewAfter)
						renew(t, folder, time.Unix(2, 0))
						folder.changes.set(struct{}{})
					}()
				}
				begun := time.Now()
				anew := (&server{folder: folder}).pause(ctx, lastRetry, id)
				if took := time.Since(begun); took != c.want || anew != c.anew {
					t.Errorf("paused %s, kubelet anew %t; want %s, %t", took, anew, c.want, c.anew)
				}
			})
		})
	}
}

func TestSocketNames(t *testing.T) {
	f := &folder{path: "/var/lib/kubelet/device-plugins", token: "0a1b2c3d"}
	for _, want := range []string{"numalane-0a1b2c3d-541d84bc-1.sock", "numalane-0a1b2c3d-541d84bc-2.sock"} {
		if got := filepath.Base(f.newSocket("intel.com/a")); got != want {
			t.Errorf("socket %s, want %s", got, want)
		}
	}
}
