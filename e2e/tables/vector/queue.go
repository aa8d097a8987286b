package vector

import (
	"fmt"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

// Queue are the questions that the kubelet's tests raise. They wait until the
// tests have ended, some of which count in metrics what the kubelet does.
type Queue struct{ asked []func() }

// Later queues a question of the running test, if it is one of a test, to be
// asked under the feature gates of now. It must keep nothing that the test may change.
func (q *Queue) Later(question func(test string)) {
	test, ok := Test()
	if !ok {
		return
	}
	gates := utilfeature.DefaultMutableFeatureGate.DeepCopy()
	q.asked = append(q.asked, func() {
		utilfeature.DefaultFeatureGate = gates
		question(test)
	})
}

// Run asks all questions, when the tests have ended with a code, and returns
// the code of the whole.
func (q *Queue) Run(code int) int {
	if code != 0 {
		return code
	}
	for _, ask := range q.asked {
		ask()
	}
	fmt.Printf("asked %d questions\n", len(q.asked))
	return 0
}
