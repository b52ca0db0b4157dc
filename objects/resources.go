package objects

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// resource is a collection of the API server that is followed.
type resource struct {
	schema.GroupVersionResource
	kind string
}

// namespaces are followed for their labels, and for the identity of the cluster.
var namespaces = resource{schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, crds.KindNamespace}

// definitions tell whether a kind is going away, and its objects with it.
var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// resources are the collections that a cluster's set is made of. ImageAttestations are not:
// they are as many as images, and asked for by name.
func resources() []resource {
	of := func(groupVersion, plural, kind string) resource {
		gv, _ := schema.ParseGroupVersion(groupVersion) // of constants
		return resource{gv.WithResource(plural), kind}
	}
	return []resource{
		namespaces,
		of(kritis.GroupVersion, "attestationauthorities", kritis.KindAttestationAuthority),
		of(kritis.GroupVersion, "genericattestationpolicies", kritis.KindGenericAttestationPolicy),
		of(kritis.GroupVersion, "imagesecuritypolicies", kritis.KindImageSecurityPolicy),
		of(kritis.GroupVersion, "admissionallowlists", kritis.KindAdmissionAllowlist),
		of(horkos.GroupVersion, "clusterattestationpolicies", horkos.KindClusterAttestationPolicy),
		of(horkos.GroupVersion, "imagerevocations", horkos.KindImageRevocation),
		of(crds.NotationGroupVersion, "trustpolicies", crds.KindTrustPolicy),
		of(crds.NotationGroupVersion, "truststores", crds.KindTrustStore),
	}
}

// resourceOf is that of a kind.
func resourceOf(kind string) resource {
	for _, r := range resources() {
		if r.kind == kind {
			return r
		}
	}
	return resource{}
}

// name is that of the resource's CustomResourceDefinition, and namespaces.
func (r resource) name() string { return r.GroupResource().String() }
