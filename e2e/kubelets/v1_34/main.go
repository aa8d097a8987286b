// managers-1.34 drives the resource managers of kubelet 1.34: see package
// managers.
package main

import (
	"github.com/numalane/numalane/e2e/kubelets/managers"
	"github.com/numalane/numalane/e2e/kubelets/v1_34/wiring"
)

func main() { managers.Main(wiring.New) }
