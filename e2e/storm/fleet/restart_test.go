package fleet

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKnowsPods(t *testing.T) {
	const (
		start = `I1126 12:52:25.978013    1671 server.go:545] "Kubelet version" kubeletVersion="v1.37.2"` + "\n"
		none  = `I1126 12:51:01.100331     116 kubelet.go:2760] "SyncLoop ADD" source="api" pods=[]` + "\n"
		some  = `I1126 12:52:27.118710    1671 kubelet.go:2760] "SyncLoop ADD" source="api" pods=["default/storm-00127"]` + "\n"
	)
	tests := map[string]struct {
		before, after string
		cut           bool // the log is begun anew
		want          bool
	}{
		"it has just started":      {after: start},
		"its life before does not": {before: start + none + some, after: start},
		"it has none":              {before: start, after: start + none, want: true},
		"it has some":              {before: start + none, after: start + some, want: true},
		"the log was cut":          {before: start + none + some + start, after: some, cut: true, want: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "kubelet.log")
			text := tt.before + tt.after
			if tt.cut {
				text = tt.after
			}
			if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := knowsPods(log, int64(len(tt.before))); (err == nil) != tt.want {
				t.Errorf("error %v, want that it knows: %t", err, tt.want)
			}
		})
	}
}
