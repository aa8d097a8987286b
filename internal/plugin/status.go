package plugin

import "path/filepath"

// Phase is how far a pool is on its way to the kubelet.
type Phase uint8

// The phases, in order.
const (
	Idle        Phase = iota // nothing to advertise
	Waiting                  // no kubelet listens
	Retrying                 // a session ended, the next one is to come
	Registering              // the kubelet is asked to connect
	Standby                  // a newer instance of the plugin has the pool; the stream may be open
	Live                     // the kubelet's ListAndWatch stream is open
)

var phases = [...]string{"idle", "waiting", "retrying", "registering", "standby", "live"}

// String is the phase as a word, for logs and probes.
func (p Phase) String() string { return phases[p] }

// PoolStatus is one pool as the kubelet has it at this moment.
type PoolStatus struct {
	Resource string
	Phase    Phase
	Socket   string // name of the session's socket, empty without one
	Devices  int    // listed
	Healthy  int
	// Registrations counts how often the kubelet opened ListAndWatch.
	Registrations int
	// Err is why the pool is not Live, as far as something went wrong.
	Err error
}

// Status is the state of each pool that is configured or still advertised, by
// resource. It does not block.
func (s *Servers) Status() []PoolStatus {
	servers := *s.status.Load()
	all := make([]PoolStatus, 0, len(servers))
	for _, srv := range servers {
		at, pool := srv.at.Load(), srv.pool.value()
		st := PoolStatus{Resource: srv.resource, Phase: at.phase, Devices: len(pool.devices), Healthy: pool.healthy, Registrations: int(srv.registrations.Load()), Err: at.err}
		if at.socket != "" {
			st.Socket = filepath.Base(at.socket)
		}
		all = append(all, st)
	}
	return all
}
