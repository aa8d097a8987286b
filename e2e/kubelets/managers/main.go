package managers

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// Main is the program: commands on stdin, answers on stdout.
func Main(newWiring New) {
	verbosity := flag.Int("v", -1, "log what the kubelet logs at this verbosity, to stderr")
	flag.Parse()
	if err := setLog(*verbosity); err != nil {
		fatal(err)
	}
	ctx := klog.NewContext(context.Background(), klog.Background())
	if err := Serve(ctx, os.Stdin, os.Stdout, newWiring); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
	os.Exit(1)
}

// setLog sets the log that is the process's: not all of the kubelet's code has
// a logger handed to it.
func setLog(verbosity int) error {
	if verbosity < 0 {
		klog.SetLogger(logr.Discard())
		return nil
	}
	var flags flag.FlagSet
	klog.InitFlags(&flags)
	return flags.Set("v", fmt.Sprint(verbosity))
}
