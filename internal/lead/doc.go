// Package lead says whether this extender may bind pods, of several that could.
//
// In flow sightings of a Lease: that of the kube-scheduler beside this extender
// (Beside), or one of the extenders' own (Elected); an extender that is the
// only one needs none (Alone). Out comes a Term: for how long nobody else can
// lead. It ends by itself, and what is done within it has a deadline by which
// it must be over.
//
// No clocks of two machines are compared. A lease may be taken by another once
// it was not renewed for its duration, as the other has seen; and the other
// saw no renewal before it was written. So whoever knows a moment of its own
// clock before which a renewal was not written yet, knows how long the lease
// is safe. Of that time a Term uses two thirds. In the rest the API server
// ends what was sent to it at the last moment.
//
// A clock that stands still, as that of a suspended machine does, defeats every
// lease. The API server's own checks then remain: no pod is bound twice.
package lead
