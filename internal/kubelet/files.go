package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/numalane/numalane/pkg/topology"
)

// readFiles reads the three state files into s. What is wrong with them goes
// into s.Inexact in words that stay the same while the fault does, and into
// the result with its cause.
func readFiles(o *Options, last *states, s *Snapshot) []error {
	r := stateFiles{s: s}
	s.Lost.CPU = r.read(filepath.Join(o.Dir, cpuStateFile), s.Config.CPUManagerPolicy == topology.CPUManagerStatic,
		func(b []byte) (unknown []string, err error) {
			s.CPU, err = last.cpu.of(b, ParseCPUState)
			return s.CPU.Unknown, err
		})
	s.Lost.Memory = r.read(filepath.Join(o.Dir, memoryStateFile), s.Config.MemoryManagerPolicy == topology.MemoryManagerStatic,
		func(b []byte) (unknown []string, err error) {
			s.Memory, err = last.memory.of(b, ParseMemoryState)
			return s.Memory.Unknown, err
		})
	// The kubelet writes this one when the first plugin registers a device.
	s.Lost.Devices = r.read(filepath.Join(o.DevicePluginDir, checkpointName), len(s.Allocatable.Devices) > 0,
		func(b []byte) (unknown []string, err error) {
			s.Devices, err = last.devices.of(b, ParseDeviceState)
			return s.Devices.Unknown, err
		})
	return r.faults
}

type stateFiles struct {
	s      *Snapshot
	faults []error
}

// read tells whether a file is lost. One that is not there is so only if its
// manager must have written it: else nothing was ever held.
func (r *stateFiles) read(path string, expected bool, parse func([]byte) ([]string, error)) (lost bool) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if expected {
			r.fault(path, "does not exist", fmt.Errorf("%w: is the kubelet's root folder another one?", err))
		}
		return expected
	}
	if err != nil {
		r.fault(path, "cannot be read", err)
		return true
	}
	unknown, err := parse(b)
	if err != nil {
		r.fault(path, "has an unknown format", fmt.Errorf("%s: %w", path, err))
		return true
	}
	if len(unknown) > 0 {
		r.fault(path, "has fields that this version does not know", fmt.Errorf("%s: unknown fields %.200s", path, strings.Join(unknown, ", ")))
	}
	return false
}

func (r *stateFiles) fault(path, what string, cause error) {
	r.s.Inexact = append(r.s.Inexact, filepath.Base(path)+" "+what)
	r.faults = append(r.faults, cause)
}
