package main

import (
	"testing"

	"github.com/numalane/numalane/e2e/kubelets/managers/check"
	"github.com/numalane/numalane/e2e/kubelets/v1_37/wiring"
)

func TestKubelet(t *testing.T) { check.All(t, "v1.37", wiring.New) }
