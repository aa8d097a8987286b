// managers-1.37 drives the resource managers of kubelet 1.37: see package
// managers.
package main

import (
	"github.com/numalane/numalane/e2e/kubelets/managers"
	"github.com/numalane/numalane/e2e/kubelets/v1_37/wiring"
)

func main() { managers.Main(wiring.New) }
