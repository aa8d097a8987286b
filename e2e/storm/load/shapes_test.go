package load

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apihelper "k8s.io/component-helpers/resource"

	"github.com/numalane/numalane/e2e/storm/fleet"
	"github.com/numalane/numalane/pkg/allocator"
)

// What the API refuses is never created, and would be missed by nobody.
func TestDrawIsValid(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	var vfs, alone, soft, more int
	for i := range 5000 {
		p := draw(fmt.Sprint("p", i), dice, time.Now().Add(time.Hour))
		for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for j := range list {
				r := list[j].Resources
				for name, q := range r.Requests {
					limit, limited := r.Limits[name]
					switch {
					case limited && q.Cmp(limit) > 0:
						t.Fatalf("pod %s requests %s of %s and is limited to %s", p.Name, q.String(), name, limit.String())
					case (name == fleet.VF || name == fleet.Slow) && (!limited || q.Cmp(limit) != 0):
						t.Fatalf("pod %s requests %s of %s, which cannot be overcommitted, and is limited to %s", p.Name, q.String(), name, limit.String())
					}
				}
			}
		}
		asks := apihelper.PodRequests(p, apihelper.PodResourcesOptions{})
		has := !asks.Name(fleet.VF, "").IsZero()
		exclusive := allocator.NewRequest(p).Exclusive()
		switch {
		case has && asks.Cpu().MilliValue()%1000 != 0:
			soft++
		case has:
			vfs++
		case exclusive:
			alone++
		}
		if len(p.Spec.InitContainers)+len(p.Spec.Containers) > 1 {
			more++
		}
	}
	for what, n := range map[string]int{"CPUs and VFs": vfs, "CPUs alone": alone, "VFs and shared CPUs": soft, "several containers": more} {
		if n < 250 {
			t.Errorf("%d pods of 5000 are of %s", n, what)
		}
	}
}
