// Package sysfstest builds machines that do not exist: the part of sysfs and
// proc that tells CPUs, NUMA nodes, memory, PCI network devices and what hangs
// below them, as the kernel lays it out, below a folder of choice.
//
// In flows a [Machine], plain values; [Machine.Write] makes dir/sys and
// dir/proc of it. The same value tells its CPUs, so that a synthetic kubelet
// can show the machine that the tree tells. [SetVFs] and the functions beside
// it change a written tree as the kernel would, or break it as a race would.
package sysfstest
