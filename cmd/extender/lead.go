package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"

	"github.com/numalane/numalane/internal/lead"
)

// shape says which of several extenders leads.
type shape struct {
	schedulerLease string
	schedulerHost  string
	elect          bool
	lease          string
	duration       time.Duration
}

func (s *shape) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.schedulerLease, "scheduler-lease", "", "namespace/name of the Lease by which the kube-scheduler in this pod elects its leader: this extender leads while that kube-scheduler does")
	f.StringVar(&s.schedulerHost, "scheduler-host", "", "the kube-scheduler's host name, with which it signs the Lease (default: this process's)")
	f.BoolVar(&s.elect, "leader-elect", false, "elect one of several extenders behind a Service; only that one is ready")
	f.StringVar(&s.lease, "leader-elect-lease", "numalane/numalane-extender", "namespace/name of the extenders' own Lease")
	f.DurationVar(&s.duration, "leader-elect-lease-duration", 15*time.Second, "after how long without a renewal another extender may lead; this one stops after two thirds of it")
}

// leader runs for as long as the extender does.
type leader interface {
	Run(ctx context.Context) error
}

// leader makes what begins and ends the term.
func (s *shape) leader(client kubernetes.Interface, term *lead.Term) (leader, error) {
	switch {
	case s.schedulerLease != "" && s.elect:
		return nil, errors.New("--scheduler-lease and --leader-elect: the kube-scheduler's lease decides, or the extenders' own, not both")
	case s.schedulerLease != "":
		lease, err := leaseName("--scheduler-lease", s.schedulerLease)
		if err != nil {
			return nil, err
		}
		host, err := s.schedulerHost, error(nil)
		if host == "" {
			host, err = hostname()
		}
		return &lead.Beside{Term: term, Leases: client.CoordinationV1(), Lease: lease, Host: host}, err
	case s.elect:
		lease, err := leaseName("--leader-elect-lease", s.lease)
		if err != nil {
			return nil, err
		}
		if s.duration < time.Second || s.duration%time.Second != 0 {
			return nil, fmt.Errorf("--leader-elect-lease-duration %s: want whole seconds", s.duration)
		}
		host, err := hostname()
		return &lead.Elected{
			Term: term, Leases: client.CoordinationV1(), Lease: lease, Duration: s.duration,
			Identity: host + "_" + string(uuid.NewUUID()),
		}, err
	}
	return lead.Alone{Term: term}, nil
}

func leaseName(flag, s string) (types.NamespacedName, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, fmt.Errorf("%s %q: want namespace/name", flag, s)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

// hostname is the name as kube-scheduler sees it.
func hostname() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("find the host name: %w", err)
	}
	return host, nil
}
