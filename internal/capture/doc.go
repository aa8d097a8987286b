// Package capture keeps a machine for later: for a bug report, or as test data.
//
// In flows a root as topology.Read takes it, and the Host that was read there;
// out flows an archive of just what Read reads: attributes, links and folders
// of the sysfs, and in numalane/facts.json what the Host was told by netlink.
// Unpacked, it is a root that reads as the same Host. The archive has no times,
// owners or serial numbers: the same machine in the same state has the same
// bytes.
package capture
