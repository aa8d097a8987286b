module github.com/numalane/numalane/e2e/kubelets/wire

go 1.26.0
