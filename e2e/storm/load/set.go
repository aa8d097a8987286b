package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	sets     = 3
	replicas = 4
)

// CreateSets creates StatefulSets: their controller creates pods again, under
// the same names, whatever becomes of them.
func CreateSets(ctx context.Context, client kubernetes.Interface, dice *rand.Rand) error {
	for i := range sets {
		p := draw("", dice, time.Time{})
		p.Spec.RestartPolicy = corev1.RestartPolicyAlways // as a StatefulSet's must be
		for j := range p.Spec.Containers {
			p.Spec.Containers[j].Args[0] = "never"
		}
		n := int32(replicas)
		labels := map[string]string{"storm": "set", "set": fmt.Sprint(i)}
		_, err := client.AppsV1().StatefulSets(Namespace).Create(ctx, &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("set-", i), Namespace: Namespace},
			Spec: appsv1.StatefulSetSpec{
				Replicas: &n, PodManagementPolicy: appsv1.ParallelPodManagement,
				Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: p.Spec},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("create StatefulSet %d: %w", i, err)
		}
	}
	return nil
}

// DeleteSets deletes them; their pods go with them.
func DeleteSets(ctx context.Context, client kubernetes.Interface) error {
	if err := client.AppsV1().StatefulSets(Namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the StatefulSets: %w", err)
	}
	return nil
}
