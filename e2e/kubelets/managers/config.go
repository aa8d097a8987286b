package managers

import (
	"context"
	"fmt"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/pkg/features"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig/configfiles"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"
)

// readConfig reads a kubelet's configuration, sets its feature gates and
// refuses what the kubelet refuses, in the order of app.NewKubeletCommand.
func readConfig(ctx context.Context, path string) (*kubeletconfig.KubeletConfiguration, error) {
	loader, err := configfiles.NewFsLoader(&utilfs.DefaultFs{}, path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	config, err := loader.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	if err := setFeatureGates(config.FeatureGates); err != nil {
		return nil, fmt.Errorf("set the feature gates of %s: %w", path, err)
	}
	config.FailCgroupV1 = false // else the validation looks at the host
	if err := validation.ValidateKubeletConfiguration(config, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("validate %s: %w", path, err)
	}
	// The check of app.run, which no validation has.
	if config.TopologyManagerPolicyOptions != nil && !utilfeature.DefaultFeatureGate.Enabled(features.TopologyManagerPolicyOptions) {
		return nil, fmt.Errorf("validate %s: topologyManagerPolicyOptions need feature gate %s", path, features.TopologyManagerPolicyOptions)
	}
	return config, nil
}

// setFeatureGates sets these gates and all others to their defaults: gates are
// the process's, and what the kubelet before had set must not stay.
func setFeatureGates(wanted map[string]bool) error {
	gates := utilfeature.DefaultMutableFeatureGate
	for name := range gates.GetAll() {
		if err := gates.ResetFeatureValueToDefault(name); err != nil {
			return err
		}
	}
	return gates.SetFromMap(wanted)
}
