package main

import (
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/numalane/numalane/internal/daemon"
)

// logFlags are the flags of the sriov-network-device-plugin that tell where its
// log goes: of its image's entrypoint, and of glog.
type logFlags struct {
	dir      string
	onStderr bool // to stderr alone

	set *pflag.FlagSet
}

// logRoot is where the image's entrypoint makes the folder of --log-dir.
const logRoot = "/var/log"

// noEffect are glog's flags that are taken and change nothing: our log always
// goes to stderr, whole, and has neither source lines nor stack traces to choose.
var noEffect = []string{"alsologtostderr", "stderrthreshold", "vmodule", "log-backtrace-at"}

// addFlags adds them. -v and --log-level are one.
func (l *logFlags) addFlags(f *pflag.FlagSet) {
	l.set = f
	f.StringVar(&l.dir, "log-dir", "", "folder to write the log to as well, below "+logRoot+" unless absolute")
	f.AddFlag(&pflag.Flag{Name: "v", Shorthand: "v", Usage: "as --log-level", Value: f.Lookup("log-level").Value, Hidden: true})
	f.BoolVar(&l.onStderr, "logtostderr", false, "write no log file whatever --log-dir says")
	f.Bool("alsologtostderr", false, "has no effect")
	for _, name := range noEffect[1:] {
		f.String(name, "", "has no effect")
	}
	f.Lookup("logtostderr").Hidden = true
	for _, name := range noEffect {
		f.Lookup(name).Hidden = true
	}
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-")) // log_dir
	})
}

// folder is where the log file goes; empty: there is none.
func (l *logFlags) folder() string {
	switch {
	case l.dir == "" || l.onStderr:
		return ""
	case filepath.IsAbs(l.dir):
		return l.dir
	}
	return filepath.Join(logRoot, l.dir)
}

// logger makes the log. A folder that cannot be written is no reason not to
// serve a node: the log says so.
func (l *logFlags) logger(logging *daemon.Logging, stderr io.Writer) (*slog.Logger, io.Closer, error) {
	var file *daemon.LogFile
	var problem error
	w := stderr
	if dir := l.folder(); dir != "" {
		if file, problem = daemon.OpenLogFile(dir, "numalane-plugin.log"); problem == nil {
			w = io.MultiWriter(stderr, file)
		}
	}
	log, err := logging.Logger(w)
	if err != nil {
		return nil, nil, err
	}
	if problem != nil {
		log.Warn("the log goes to stderr alone", "flag", "--log-dir", "err", problem)
	}
	for _, name := range noEffect {
		if l.set.Changed(name) {
			log.Info("flag has no effect", "flag", "--"+name)
		}
	}
	if file == nil {
		return log, io.NopCloser(nil), nil
	}
	return log, file, nil
}

// longFlags gives flags of more than a letter the second dash that Go's own
// flag package, and so the sriov-network-device-plugin, does not ask for.
func longFlags(cmd *cobra.Command, args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if arg == "--" {
			return append(out[:i], args[i:]...)
		}
		out[i] = arg
		name, dashed := strings.CutPrefix(arg, "-")
		name, _, _ = strings.Cut(name, "=")
		if dashed && len(name) > 1 && cmd.Flags().Lookup(name) != nil {
			out[i] = "-" + arg
		}
	}
	return out
}
