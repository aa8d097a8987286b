package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	schedulerconfig "k8s.io/kube-scheduler/config/v1"

	"github.com/numalane/numalane/e2e/cluster"
	"github.com/numalane/numalane/internal/sysfstest"
)

// as writes a kubeconfig for a service account of deploy/.
func as(t *testing.T, c *cluster.Cluster, account string) string {
	t.Helper()
	r, err := c.Client.CoreV1().ServiceAccounts("numalane").CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), account)
	if err := c.WriteKubeconfig(file, c.Config.Host, r.Status.Token); err != nil {
		t.Fatal(err)
	}
	return file
}

// readiness is what an extender says of itself, and whether it is ready.
func readiness(ctx context.Context, health string) (string, bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+health+"/readyz?verbose", nil)
	if err != nil {
		return "", false, err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", false, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), r.StatusCode == http.StatusOK, err
}

func awaitReadiness(t *testing.T, health string, ready bool, words ...string) {
	t.Helper()
	if err := cluster.Wait(t.Context(), time.Minute, fmt.Sprintf("readiness to be %t and to say %q", ready, words), func(ctx context.Context) error {
		said, is, err := readiness(ctx, health)
		if err == nil && (is != ready || slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(said, w) })) {
			err = fmt.Errorf("ready %t: %s", is, said)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestExtenderRights runs both shapes with the rights of deploy/, as a user
// would apply it; and takes from an extender one right after the other: it says
// what it lacks, does not guess meanwhile, and goes on once it may.
func TestExtenderRights(t *testing.T) {
	c := bare(t, cluster.Options{Authorization: "RBAC"})
	deploy := filepath.Join("..", "deploy")
	apply := func(dir string) {
		if err := c.Kubectl(t.Context(), "apply", "-k", dir); err != nil {
			t.Fatal(err)
		}
	}
	apply(deploy)
	node(t, c, "n1", sysfstest.Uniform(2, 4, 1, sysfstest.X710("0000:3b:00.0", 0, 2), sysfstest.X710("0000:af:00.0", 1, 2)), 4)

	scheduler := as(t, c, "numalane-scheduler")
	one, verbs, besideHealth, err := c.StartExtenderCandidate(t.Context(), cluster.Candidate{Name: "beside", Host: "pod-a"},
		"--kubeconfig", scheduler, "--scheduler-lease=numalane/numalane-scheduler")
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.StartCandidate(t.Context(), cluster.Candidate{Name: "scheduler-a", Host: "pod-a"},
		filepath.Join(deploy, "scheduler-config.yaml"), "http://"+verbs,
		func(k *schedulerconfig.KubeSchedulerConfiguration) { k.ClientConnection.Kubeconfig = scheduler })
	if err != nil {
		t.Fatal(err)
	}
	awaitReadiness(t, besideHealth, true)
	batch(t, c, "beside", 2)
	p.Kill()
	one.Kill()

	apply(filepath.Join(deploy, "service"))
	extender := as(t, c, "numalane-extender")
	n := 0
	start := func() (health string, stop func()) {
		n++
		p, _, health, err := c.StartExtenderCandidate(t.Context(), cluster.Candidate{Name: fmt.Sprint("behind-", n)}, "--kubeconfig", extender, "--leader-elect", "--leader-elect-lease-duration=3s")
		if err != nil {
			t.Fatal(err)
		}
		return health, p.Stop
	}
	health, stop := start()
	awaitReadiness(t, health, true)
	stop()
	roles, clusterRoles := c.Client.RbacV1().Roles("numalane"), c.Client.RbacV1().ClusterRoles()
	for _, tt := range []struct{ resource, want string }{
		{"nodes", `cannot list resource "nodes"`},
		{"pods", `cannot list resource "pods"`},
		{"leases", `cannot get resource "leases"`},
	} {
		t.Run("without "+tt.resource, func(t *testing.T) {
			role, err := roles.Get(t.Context(), "numalane-extender-lease", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			clusterRole, err := clusterRoles.Get(t.Context(), "numalane-extender", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			put := func(without string) {
				of := func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, without) }
				r, cr := role.DeepCopy(), clusterRole.DeepCopy()
				r.Rules, cr.Rules = slices.DeleteFunc(r.Rules, of), slices.DeleteFunc(cr.Rules, of)
				r.ResourceVersion, cr.ResourceVersion = "", ""
				if _, err := roles.Update(t.Context(), r, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := clusterRoles.Update(t.Context(), cr, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			put(tt.resource)
			defer put("nothing")
			health, stop := start()
			defer stop()
			awaitReadiness(t, health, false, tt.want, "system:serviceaccount:numalane:numalane-extender")
			put("nothing")
			awaitReadiness(t, health, true)
		})
	}
	list, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if p := &list.Items[i]; p.Status.Phase != corev1.PodRunning {
			t.Errorf("pod %s is %s", p.Name, p.Status.Phase)
		}
	}
}
