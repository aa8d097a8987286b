// Package daemon is what the mains share: how a daemon starts and ends, logs,
// and says its version. In flows a command, out an exit code.
package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// Main runs a command until it ends or is told to, and exits the process: with
// 1, and the reason, when the command failed. A second signal kills.
func Main(cmd *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", cmd.Name(), err)
		os.Exit(1)
	}
}

// Version is the binary's, as the Go toolchain noted it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version + " " + info.GoVersion
}

// Logging are the flags of a log.
type Logging struct{ level, format string }

// AddFlags adds --log-level and --log-format.
func (l *Logging) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&l.level, "log-level", "info", "debug, info, warn or error; or a verbosity as glog has it, of which 4 and more is debug")
	f.StringVar(&l.format, "log-format", "text", "text or json")
}

// Logger makes the log that the flags ask for. The Kubernetes libraries write
// into it too. The error names the flag.
func (l *Logging) Logger(w io.Writer) (*slog.Logger, error) {
	level, err := parseLevel(l.level)
	if err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch l.format {
	case "text":
		h = slog.NewTextHandler(w, o)
	case "json":
		h = slog.NewJSONHandler(w, o)
	default:
		return nil, fmt.Errorf("--log-format %q: want text or json", l.format)
	}
	log := slog.New(h)
	klog.SetSlogLogger(log)
	return log, nil
}

// debugVerbosity is the V level from which on Kubernetes' components tell what
// is for debugging.
const debugVerbosity = 4

func parseLevel(s string) (slog.Level, error) {
	if v, err := strconv.ParseUint(s, 10, 31); err == nil {
		if v >= debugVerbosity {
			return slog.LevelDebug, nil
		}
		return slog.LevelInfo, nil
	}
	var level slog.Level
	err := level.UnmarshalText([]byte(s))
	return level, err
}
