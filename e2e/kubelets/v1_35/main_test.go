package main

import (
	"testing"

	"github.com/numalane/numalane/e2e/kubelets/managers/check"
	"github.com/numalane/numalane/e2e/kubelets/v1_35/wiring"
)

func TestKubelet(t *testing.T) { check.All(t, "v1.35", wiring.New) }
