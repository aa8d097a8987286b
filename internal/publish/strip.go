package publish

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/numalane/numalane/pkg/topology"
)

func stripNode(o *v1.Node) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}}
	n.Annotations, n.Labels = nodeMetaOf(o)
	n.Status.NodeInfo.KubeletVersion = o.Status.NodeInfo.KubeletVersion
	return n
}

// nodeMetaOf are the annotations and labels of a Node that are ours.
func nodeMetaOf(o metav1.Object) (annotations, labels map[string]string) {
	annotations = kept(o.GetAnnotations(), topology.TopologyAnnotation, topology.PoolsAnnotation)
	labels = kept(o.GetLabels(), topology.PolicyLabel, topology.ScopeLabel)
	for k, v := range o.GetLabels() {
		if strings.HasPrefix(k, topology.PoolLabelPrefix) {
			labels[k] = v
		}
	}
	return annotations, labels
}

func stripPod(o *v1.Pod) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion}}
	p.Annotations = kept(o.Annotations, topology.AllocationAnnotation, v1.MirrorPodAnnotationKey)
	p.Spec.NodeName = o.Spec.NodeName
	p.Spec.Resources = o.Spec.Resources
	p.Spec.InitContainers = stripContainers(o.Spec.InitContainers)
	p.Spec.Containers = stripContainers(o.Spec.Containers)
	p.Status.Phase = o.Status.Phase
	p.Status.QOSClass = o.Status.QOSClass
	p.Status.ExtendedResourceClaimStatus = o.Status.ExtendedResourceClaimStatus
	return p
}

func stripContainers(cs []v1.Container) []v1.Container {
	out := make([]v1.Container, len(cs))
	for i := range cs {
		out[i] = v1.Container{Name: cs[i].Name, Resources: cs[i].Resources, RestartPolicy: cs[i].RestartPolicy}
	}
	return out
}

func kept(m map[string]string, keys ...string) map[string]string {
	out := map[string]string{}
	for _, k := range keys {
		if v, ok := m[k]; ok {
			out[k] = v
		}
	}
	return out
}

// sameNode and samePod compare what is left. Most updates are of what is taken
// away, as a Node's heartbeat.
func sameNode(a, b *v1.Node) bool {
	return a.UID == b.UID && equality.Semantic.DeepEqual(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(a.Labels, b.Labels) && equality.Semantic.DeepEqual(&a.Status, &b.Status)
}

func samePod(a, b *v1.Pod) bool {
	return a.UID == b.UID && equality.Semantic.DeepEqual(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(&a.Spec, &b.Spec) && equality.Semantic.DeepEqual(&a.Status, &b.Status)
}
