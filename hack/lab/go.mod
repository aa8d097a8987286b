module github.com/numalane/numalane/hack/lab

go 1.26.0
