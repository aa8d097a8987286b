package deploy_test

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulerv1 "k8s.io/kube-scheduler/config/v1"
)

// TestSchedulerConfig holds the points without which the extender is wrong or
// useless.
func TestSchedulerConfig(t *testing.T) {
	for _, file := range []string{"scheduler-config.yaml", "service/scheduler-config.yaml"} {
		t.Run(file, func(t *testing.T) { checkConfig(t, one[*schedulerv1.KubeSchedulerConfiguration](t, file)) })
	}
}

func checkConfig(t *testing.T, c *schedulerv1.KubeSchedulerConfiguration) {
	t.Helper()
	if len(c.Profiles) != 1 || len(c.Extenders) != 1 {
		t.Fatalf("%d profiles and %d extenders, want one of each", len(c.Profiles), len(c.Extenders))
	}
	p := c.Profiles[0]
	if p.SchedulerName == nil || *p.SchedulerName != "numalane" {
		t.Error("the profile's schedulerName is not numalane")
	}
	if p.PercentageOfNodesToScore == nil || *p.PercentageOfNodesToScore != 100 {
		t.Error("percentageOfNodesToScore is not 100: nodes that would do may never be asked about")
	}
	e := c.Extenders[0]
	type contract struct {
		Filter, Prioritize, Bind, Preempt string
		NodeCacheCapable, Ignorable       bool
		ManagedResources                  int
	}
	want := contract{Filter: "filter", Prioritize: "prioritize", Bind: "bind", Preempt: "preempt", NodeCacheCapable: true}
	got := contract{e.FilterVerb, e.PrioritizeVerb, e.BindVerb, e.PreemptVerb, e.NodeCacheCapable, e.Ignorable, len(e.ManagedResources)}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the extender, -want +got:\n%s", d)
	}
	if e.Weight < 5 || e.HTTPTimeout.Duration <= 0 {
		t.Errorf("weight %d, httpTimeout %s: want at least 5, and a limit", e.Weight, e.HTTPTimeout.Duration)
	}
	if l := c.LeaderElection; l.ResourceName == "" || l.ResourceName == "kube-scheduler" {
		t.Errorf("lease %q: want one of its own", l.ResourceName)
	}
}

// named is the object of this kind and name in a file.
func named[T interface {
	GetName() string
}](t *testing.T, file, name string) T {
	t.Helper()
	for _, doc := range documents(t, file) {
		if obj, ok := object(t, doc).(T); ok && obj.GetName() == name {
			return obj
		}
	}
	t.Fatalf("%s has no %T %s", file, *new(T), name)
	return *new(T)
}

func leaseOf(c *schedulerv1.KubeSchedulerConfiguration) string {
	return c.LeaderElection.ResourceNamespace + "/" + c.LeaderElection.ResourceName
}

// restrictedPod: none of the pod's containers may do more than it needs, and
// two replicas do not rely on one node.
func restrictedPod(t *testing.T, d *appsv1.Deployment, containers ...string) {
	t.Helper()
	pod := &d.Spec.Template.Spec
	for _, name := range containers {
		restricted(t, container(t, pod, name))
	}
	if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
		t.Errorf("the pod of %s may run as root", d.Name)
	}
	if d.Spec.Replicas == nil || *d.Spec.Replicas != 2 || len(pod.TopologySpreadConstraints) == 0 || pod.HostNetwork {
		t.Errorf("%s: want 2 replicas that spread over nodes, with host names of their own", d.Name)
	}
}

// TestBeside: the extender listens where the configuration says, is reachable to
// nobody else, and follows the lease of the kube-scheduler beside it.
func TestBeside(t *testing.T) {
	c := one[*schedulerv1.KubeSchedulerConfiguration](t, "scheduler-config.yaml")
	d := one[*appsv1.Deployment](t, "scheduler.yaml")
	restrictedPod(t, d, "numalane-extender", "kube-scheduler")
	args := container(t, &d.Spec.Template.Spec, "numalane-extender").Args
	listen := "--listen=" + strings.TrimPrefix(c.Extenders[0].URLPrefix, "http://")
	if !slices.Contains(args, listen) || !strings.HasPrefix(listen, "--listen=127.0.0.1:") {
		t.Errorf("the extender's arguments are %q: want %q on loopback", args, listen)
	}
	if lease := "--scheduler-lease=" + leaseOf(c); !slices.Contains(args, lease) {
		t.Errorf("the extender's arguments are %q: want %q", args, lease)
	}
	role := named[*rbacv1.Role](t, "scheduler.yaml", "numalane-extender-lease")
	want := []rbacv1.PolicyRule{{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{c.LeaderElection.ResourceName}, Verbs: []string{"get"}}}
	if d := cmp.Diff(want, role.Rules); d != "" {
		t.Errorf("the extender's rights on the lease, -want +got:\n%s", d)
	}
}

// TestService: kube-scheduler reaches the verbs through the Service, and both
// sides show a certificate; of the extenders only the leader is ready.
func TestService(t *testing.T) {
	c := one[*schedulerv1.KubeSchedulerConfiguration](t, "service/scheduler-config.yaml")
	ext, sched := one[*appsv1.Deployment](t, "service/extender.yaml"), one[*appsv1.Deployment](t, "service/scheduler.yaml")
	restrictedPod(t, ext, "numalane-extender")
	restrictedPod(t, sched, "kube-scheduler")
	svc := one[*v1.Service](t, "service/extender.yaml")
	host := svc.Name + "." + svc.Namespace + ".svc"
	e := c.Extenders[0]
	if want := "https://" + host + ":" + strconv.Itoa(int(svc.Spec.Ports[0].Port)); e.URLPrefix != want || !e.EnableHTTPS {
		t.Errorf("the extender is at %s, want %s", e.URLPrefix, want)
	}
	if d := cmp.Diff(ext.Spec.Template.Labels, svc.Spec.Selector); d != "" {
		t.Errorf("the Service selects other pods, -want +got:\n%s", d)
	}
	ctr := container(t, &ext.Spec.Template.Spec, "numalane-extender")
	i := slices.IndexFunc(ctr.Ports, func(p v1.ContainerPort) bool { return p.Name == svc.Spec.Ports[0].TargetPort.String() })
	if i < 0 || !slices.Contains(ctr.Args, "--listen=:"+strconv.Itoa(int(ctr.Ports[i].ContainerPort))) {
		t.Errorf("the Service's port is none that the extender listens on: %v, %q", ctr.Ports, ctr.Args)
	}
	if ctr.ReadinessProbe.HTTPGet.Port.IntValue() == int(ctr.Ports[i].ContainerPort) {
		t.Error("the kubelet would need a certificate to probe")
	}
	if ext.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("strategy %q: a rolling update waits for a second replica that is ready", ext.Spec.Strategy.Type)
	}
	if e.TLSConfig == nil || e.TLSConfig.ServerName != host || e.TLSConfig.Insecure {
		t.Fatalf("TLS %+v, want it for %s", e.TLSConfig, host)
	}
	for _, f := range []struct {
		d     *appsv1.Deployment
		name  string
		files []string
	}{
		{sched, "kube-scheduler", []string{e.TLSConfig.CertFile, e.TLSConfig.KeyFile, e.TLSConfig.CAFile}},
		{ext, "numalane-extender", []string{flag(ctr.Args, "--tls-cert-file="), flag(ctr.Args, "--tls-private-key-file="), flag(ctr.Args, "--client-ca-file=")}},
	} {
		pod := &f.d.Spec.Template.Spec
		secrets := map[string]string{} // by folder
		for _, m := range container(t, pod, f.name).VolumeMounts {
			for _, v := range pod.Volumes {
				if v.Name == m.Name && v.Secret != nil {
					secrets[m.MountPath] = v.Secret.SecretName
				}
			}
		}
		for _, file := range f.files {
			if i := strings.LastIndexByte(file, '/'); i < 0 || secrets[file[:i]] != f.d.Name+"-tls" {
				t.Errorf("%s: %q is in no mounted Secret %s-tls", f.name, file, f.d.Name)
			}
		}
	}
	namespace, lease, _ := strings.Cut(flag(ctr.Args, "--leader-elect-lease="), "/")
	if namespace != ext.Namespace || !slices.Contains(ctr.Args, "--leader-elect") || leaseOf(c) == namespace+"/"+lease {
		t.Errorf("arguments %q: want a lease of its own", ctr.Args)
	}
	role := named[*rbacv1.Role](t, "service/extender.yaml", "numalane-extender-lease")
	group := []string{"coordination.k8s.io"}
	want := []rbacv1.PolicyRule{
		{APIGroups: group, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{APIGroups: group, Resources: []string{"leases"}, ResourceNames: []string{lease}, Verbs: []string{"get", "update"}},
	}
	if d := cmp.Diff(want, role.Rules); d != "" {
		t.Errorf("the extender's rights on the lease, -want +got:\n%s", d)
	}
}

// TestExtenderRights: in both shapes the same, and bound to the account that the
// extender runs as.
func TestExtenderRights(t *testing.T) {
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"pods/binding"}, Verbs: []string{"create"}},
	}
	for _, file := range []string{"scheduler.yaml", "service/extender.yaml"} {
		if d := cmp.Diff(want, named[*rbacv1.ClusterRole](t, file, "numalane-extender").Rules); d != "" {
			t.Errorf("%s, -want +got:\n%s", file, d)
		}
		account := one[*appsv1.Deployment](t, file).Spec.Template.Spec.ServiceAccountName
		subjects := append(named[*rbacv1.ClusterRoleBinding](t, file, "numalane-extender").Subjects, named[*rbacv1.RoleBinding](t, file, "numalane-extender-lease").Subjects...)
		for _, s := range subjects {
			if s.Name != account || s.Namespace != "numalane" {
				t.Errorf("%s: rights for %s/%s, and the extender runs as %s", file, s.Namespace, s.Name, account)
			}
		}
	}
}

// TestGeneratedNames: kustomize adds a hash to the name of a ConfigMap that it
// makes, wherever it finds that name; so it is the name of nothing else.
func TestGeneratedNames(t *testing.T) {
	for dir, file := range map[string]string{".": "scheduler.yaml", "service": "service/scheduler.yaml"} {
		var k kustomization
		strictly(t, documents(t, path.Join(dir, "kustomization.yaml"))[0], &k)
		made := k.ConfigMapGenerator[0].Name
		pod := one[*appsv1.Deployment](t, file).Spec.Template.Spec
		if !slices.ContainsFunc(pod.Volumes, func(v v1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == made }) {
			t.Errorf("%s: ConfigMap %s is not mounted", file, made)
		}
		for _, doc := range documents(t, file) {
			if r, ok := object(t, doc).(*rbacv1.Role); ok {
				for _, rule := range r.Rules {
					if slices.Contains(rule.ResourceNames, made) {
						t.Errorf("%s: Role %s names %s, and would get the name with the hash", file, r.Name, made)
					}
				}
			}
		}
	}
}

// flag is the value of an argument.
func flag(args []string, prefix string) string {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, prefix); ok {
			return v
		}
	}
	return ""
}
