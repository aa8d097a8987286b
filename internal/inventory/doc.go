// Package inventory is the one loop that watches the host.
//
// In flow the kernel's events, the ticks of a timer and requests to look
// again; each leads to a scan, and many at once to one. Out flows an immutable
// [Snapshot] of the machine each time that it has changed, to every
// subscriber, who gets the newest and never a queue.
//
// To what sysfs tells, the loop adds the [Facts] that only netlink has. This is
// the one package that speaks it.
//
// A scan that fails changes nothing: the last good snapshot stands, and the
// scan is tried again. What events miss, the timer finds: those of a driver
// that sends none, and all of a root that is not the running machine's.
package inventory
