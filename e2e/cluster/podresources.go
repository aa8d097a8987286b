package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// PodResources calls the node's kubelet for what it has and what pods hold.
func (n *Node) PodResources(ctx context.Context, call func(context.Context, podresources.PodResourcesListerClient) error) error {
	conn, err := grpc.NewClient("unix://"+filepath.Join(n.KubeletDir(), "pod-resources", "kubelet.sock"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("PodResources of %s: %w", n.Name, err)
	}
	defer conn.Close()
	if err := call(ctx, podresources.NewPodResourcesListerClient(conn)); err != nil {
		return fmt.Errorf("PodResources of %s: %w", n.Name, err)
	}
	return nil
}

// insecureTransport is for probes of servers with certificates of their own
// making, on loopback.
func insecureTransport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}
