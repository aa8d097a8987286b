package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	schedulerconfig "k8s.io/kube-scheduler/config/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/e2e/storm/journal"
	"github.com/numalane/numalane/e2e/storm/load"
	"github.com/numalane/numalane/e2e/storm/trouble"
)

// Storm is one run. Set all but what is private.
type Storm struct {
	Out      io.Writer // progress
	Err      io.Writer // refusals, in short, but for those of plain kube-scheduler
	Bin      string    // folder of the binaries
	Deploy   string    // the repository's deploy/
	Keep     string    // folder for traces, and for the logs of a storm that failed
	Nodes    int
	Minutes  float64
	Seed     uint64
	Extender bool // false: plain kube-scheduler, for comparison

	c        *cluster.Cluster
	client   kubernetes.Interface
	members  []*fleet.Member
	journal  *journal.Journal
	watched  func() error // waits for the end of the journal's watch
	extender *cluster.Process
	address  string // the extender's
	sched    *cluster.Process
	began    time.Time

	sampler *sampler
	court   *court
	outMu   sync.Mutex
}

// settleTime is what pods have to end by themselves when the load is over.
const settleTime = 15 * time.Second

// Run does it all.
func (s *Storm) Run(ctx context.Context) (*Tally, error) {
	s.began = time.Now()
	s.say("seed %d, %d nodes, %.1f minutes, extender %v", s.Seed, s.Nodes, s.Minutes, s.Extender)
	if err := preflight(s.Nodes); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Keep, 0o755); err != nil {
		return nil, err
	}
	reading, unread := context.WithCancel(ctx)
	defer unread()
	if err := s.start(ctx, reading); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	t := &Tally{PlainScheduler: !s.Extender}
	stop, watching := s.watch(ctx)
	err := s.blow(ctx, t)
	if err == nil {
		err = s.end(ctx, t)
	}
	stop()
	err = errors.Join(err, watching.Wait())
	unread()
	err = errors.Join(err, s.watched())
	s.count(t)
	for _, text := range s.sampler.findings() {
		fmt.Fprintln(s.Err, text)
	}
	return t, err
}

// Stop ends everything. The logs of a storm that failed are kept.
func (s *Storm) Stop(failed bool) error {
	var err error
	if failed && s.c != nil {
		err = s.keepLogs()
	}
	if s.court != nil {
		err = errors.Join(err, s.court.close())
	}
	if s.c == nil {
		return err
	}
	return errors.Join(err, s.c.Stop())
}

func (s *Storm) say(format string, args ...any) {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	fmt.Fprintf(s.Out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// dice are for one purpose each, so that one's draws do not change another's.
func (s *Storm) dice(purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(s.Seed, purpose)) }

// start brings the cluster up. The journal is written until reading ends.
func (s *Storm) start(ctx, reading context.Context) error {
	quiet := func(string, ...any) {}
	var err error
	if s.c, err = cluster.Start(ctx, cluster.Options{Bin: s.Bin, Progress: quiet}); err != nil {
		return err
	}
	config := rest.CopyConfig(s.c.Config)
	config.QPS, config.Burst = -1, 0 // no limit of our own
	config.Timeout = 0
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	s.say("the control plane is up")
	s.journal = journal.New()
	if s.watched, err = s.journal.Watch(reading, s.c.Etcd); err != nil {
		return err
	}
	if err := s.startNodes(ctx); err != nil {
		return err
	}
	if s.Extender {
		if s.extender, s.address, err = s.c.StartExtender(ctx); err != nil {
			return err
		}
	}
	s.sched, err = s.c.StartScheduler(ctx, "numalane-scheduler", filepath.Join(s.Deploy, "scheduler-config.yaml"), s.address,
		func(c *schedulerconfig.KubeSchedulerConfiguration) {
			c.ClientConnection.QPS, c.ClientConnection.Burst = 500, 1000
		})
	return err
}

func (s *Storm) startNodes(ctx context.Context) error {
	for _, n := range fleet.New(s.Nodes, s.dice(1)) {
		m, err := n.Start(ctx, s.c)
		if err != nil {
			return err
		}
		s.members = append(s.members, m)
	}
	for _, m := range s.members {
		if err := m.Ready(ctx); err != nil {
			return err
		}
	}
	s.say("%d nodes are ready", len(s.members))
	return nil
}

// watch begins to sample the kubelets, to judge refusals and to tell of it all.
func (s *Storm) watch(ctx context.Context) (stop func(), done *errgroup.Group) {
	ctx, stop = context.WithCancel(ctx)
	s.sampler = newSampler(s.members, s.journal)
	s.court = newCourt(s)
	done = &errgroup.Group{}
	done.Go(func() error { s.sampler.run(ctx); return nil })
	done.Go(func() error { return s.court.run(ctx) })
	done.Go(func() error { return s.capLogs(ctx) })
	return stop, done
}

// blow is the load, with the kills.
func (s *Storm) blow(ctx context.Context, t *Tally) error {
	begin := time.Now()
	under, over := context.WithTimeout(ctx, time.Duration(s.Minutes*float64(time.Minute)))
	defer over()
	maker := &trouble.Maker{
		Members: s.members, APIServer: s.c.APIServer(), Extender: s.extender, Scheduler: s.sched,
		Journal: s.journal, Dice: s.dice(2),
	}
	deadline, _ := under.Deadline()
	driver := &load.Driver{Client: s.client, Book: s.journal, Dice: s.dice(3), Deadline: deadline.Add(settleTime)}
	for _, m := range s.members {
		driver.Nodes = append(driver.Nodes, m.Name)
	}
	if err := load.CreateSets(ctx, s.client, s.dice(5)); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { driver.Run(under); return nil })
	g.Go(func() error { return maker.Run(under) })
	g.Go(func() error { s.tell(under, maker); return nil })
	err := g.Wait()
	t.Kills = maker.Done()
	t.Crashes = maker.Crashes()
	if len(t.Crashes) > 0 {
		s.say("ended by themselves, and were started again: %v", t.Crashes)
	}
	t.Lasted = time.Since(begin)
	t.Admitted = s.count(t)
	s.say("the load is over, and all is up again")
	return errors.Join(err, ctx.Err())
}

// count takes over what the court and the sampler have found so far, and tells
// how many pods were admitted.
func (s *Storm) count(t *Tally) (admitted int) {
	t.Pods = 0
	for _, p := range s.journal.Pods() {
		if p.Foreign {
			continue
		}
		t.Pods++
		if !p.Admitted.IsZero() {
			admitted++
		}
	}
	s.court.count(t)
	s.sampler.count(t)
	return admitted
}

const tellEvery = 5 * time.Second

// tell prints the progress.
func (s *Storm) tell(ctx context.Context, maker *trouble.Maker) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		created, running, pending, unacked := 0, 0, 0, 0
		for _, p := range s.journal.Pods() {
			if !p.Foreign {
				created++
			}
			switch {
			case !p.Left().IsZero():
			case p.Node == "":
				pending++
			case p.Admitted.IsZero():
				unacked++
			default:
				running++
			}
		}
		var t Tally
		s.court.count(&t)
		s.say("%d pods: %d run, %d on their way, %d wait (%d for a place that there is); refused %d, outrun %d, lost %d, foreign %d; held: %.0f%% of the VFs, %.0f%% of the CPUs; %d kills",
			created, running, unacked, pending, len(s.look().placeable), t.Refused, t.Outrun, t.Lost, t.Foreign, 100*s.sampler.share(fleet.VF), 100*s.sampler.share(cpu), maker.Done())
	}
}
