package cluster

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Options are what differs from one cluster to another.
type Options struct {
	// Bin is the folder of the binaries that cmd/build makes.
	Bin string
	// Authorization is the API server's --authorization-mode, AlwaysAllow by default.
	Authorization string
	// Progress is told of each step.
	Progress func(format string, args ...any)
}

// Cluster is a running control plane and the nodes that were added to it.
type Cluster struct {
	Kubeconfig string // path inside the box
	Config     *rest.Config
	Client     kubernetes.Interface
	Etcd       string // URL of the etcd behind it

	opts      Options
	token     string
	processes []*Process // in the order of their start
	apiServer *Process
}

// APIServer is the kube-apiserver.
func (c *Cluster) APIServer() *Process { return c.apiServer }

// Start brings up etcd, kube-apiserver and kube-controller-manager, on loopback
// ports that were free. Everything ends with the box, or with Stop.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Authorization == "" {
		o.Authorization = "AlwaysAllow"
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	secret := make([]byte, 16)
	rand.Read(secret)
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, Kubeconfig: filepath.Join(Dir, "kubeconfig"), token: hex.EncodeToString(secret)}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	c.opts.Progress("starting etcd, kube-apiserver and kube-controller-manager")
	etcd, err := c.startEtcd(ctx)
	if err != nil {
		return err
	}
	c.Etcd = etcd
	if err := c.startAPIServer(ctx, etcd); err != nil {
		return err
	}
	return c.startControllerManager(ctx)
}

// Stop ends all processes, the youngest first, and removes all files. The next
// cluster may then start in the same box.
func (c *Cluster) Stop() error {
	for _, p := range slices.Backward(c.processes) {
		p.Kill()
	}
	c.processes = nil
	return os.RemoveAll(Dir)
}

// Processes are the cluster's children, in the order of their start.
func (c *Cluster) Processes() []*Process { return c.processes }

func (c *Cluster) run(name string, ownMounts bool, program string, args ...string) (*Process, error) {
	p, err := run(name, filepath.Join(Dir, "log"), ownMounts, filepath.Join(c.opts.Bin, program), args...)
	if err != nil {
		return nil, err
	}
	c.processes = append(c.processes, p)
	return p, nil
}

func (c *Cluster) startEtcd(ctx context.Context) (url string, err error) {
	client, err := freePort()
	if err != nil {
		return "", err
	}
	peer, err := freePort()
	if err != nil {
		return "", err
	}
	url = fmt.Sprintf("http://127.0.0.1:%d", client)
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", peer)
	p, err := c.run("etcd", false, "etcd",
		"--data-dir", filepath.Join(Dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL, "--initial-cluster", "default="+peerURL)
	if err != nil {
		return "", err
	}
	return url, p.serves(ctx, 30*time.Second, func(ctx context.Context) error { return get(ctx, http.DefaultClient, url+"/health") })
}

func (c *Cluster) startAPIServer(ctx context.Context, etcd string) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	keyFile, tokens := filepath.Join(Dir, "sa.key"), filepath.Join(Dir, "tokens.csv")
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := errors.Join(writeFile(keyFile, string(pemKey)), writeFile(tokens, c.token+",admin,admin,system:masters\n")); err != nil {
		return err
	}
	p, err := c.run("kube-apiserver", false, "kube-apiserver",
		"--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(port), "--cert-dir", filepath.Join(Dir, "pki"),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", keyFile, "--service-account-signing-key-file", keyFile,
		"--service-cluster-ip-range", "10.0.0.0/24", "--token-auth-file", tokens,
		"--authorization-mode", c.opts.Authorization,
		// As kubeadm has it: the agents of nodes ask for it.
		"--allow-privileged",
		"--endpoint-reconciler-type", "none", // the API server's own address is no endpoint on loopback
		"--profiling=false", "--v=1")
	if err != nil {
		return err
	}
	c.apiServer = p
	c.Config = &rest.Config{
		Host: fmt.Sprintf("https://127.0.0.1:%d", port), BearerToken: c.token,
		QPS: 500, Burst: 1000,
	}
	if err := p.serves(ctx, 60*time.Second, func(ctx context.Context) error {
		// By its bytes: client-go keeps transports by the name of the file and
		// looks into it again every 5 minutes (transport/ca_rotation.go), and the
		// cluster before this one had a file of the same name.
		ca, err := os.ReadFile(filepath.Join(Dir, "pki", "apiserver.crt"))
		if err != nil {
			return err // not there yet
		}
		c.Config.CAData = ca
		client, err := rest.HTTPClientFor(c.Config)
		if err != nil {
			return err // not whole yet
		}
		defer client.CloseIdleConnections()
		return get(ctx, client, c.Config.Host+"/readyz")
	}); err != nil {
		return err
	}
	if c.Client, err = kubernetes.NewForConfig(c.Config); err != nil {
		return err
	}
	return c.WriteKubeconfig(c.Kubeconfig, c.Config.Host, c.token)
}

// WriteKubeconfig writes how to reach the API, at its address for the reader, with
// a bearer token.
func (c *Cluster) WriteKubeconfig(path, server, token string) error {
	k := clientcmdapi.NewConfig()
	k.Clusters["e2e"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: c.Config.CAData}
	k.AuthInfos["e2e"] = &clientcmdapi.AuthInfo{Token: token}
	k.Contexts["e2e"] = &clientcmdapi.Context{Cluster: "e2e", AuthInfo: "e2e"}
	k.CurrentContext = "e2e"
	return clientcmd.WriteToFile(*k, path)
}

func (c *Cluster) startControllerManager(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	p, err := c.run("kube-controller-manager", false, "kube-controller-manager",
		"--kubeconfig", c.Kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(port),
		"--cert-dir", filepath.Join(Dir, "pki-kcm"), "--leader-elect=false", "--profiling=false",
		"--flex-volume-plugin-dir", filepath.Join(Dir, "flex"), // it makes the folder, by default below /usr/libexec
		"--service-account-private-key-file", filepath.Join(Dir, "sa.key"), "--root-ca-file", filepath.Join(Dir, "pki", "apiserver.crt"))
	if err != nil {
		return err
	}
	// Every pod needs both: without the second its volumes fail, and the kubelet
	// tries again only much later.
	return p.serves(ctx, 60*time.Second, func(ctx context.Context) error {
		_, accountErr := c.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		_, caErr := c.Client.CoreV1().ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return errors.Join(accountErr, caErr)
	})
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
