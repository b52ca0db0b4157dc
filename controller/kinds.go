package controller

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/horkos/horkos/controller/mirror"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/crds/kritis"
)

// Kind is a kind of object that bears conditions.
type Kind struct {
	Name       string
	APIVersion string
	Resource   mirror.Resource
}

// Kinds are all kinds that bear conditions.
func Kinds() []Kind {
	return []Kind{
		kindOf(kritis.GroupVersion, kritis.KindAttestationAuthority, "attestationauthorities"),
		kindOf(kritis.GroupVersion, kritis.KindGenericAttestationPolicy, "genericattestationpolicies"),
		kindOf(kritis.GroupVersion, kritis.KindImageSecurityPolicy, "imagesecuritypolicies"),
		kindOf(kritis.GroupVersion, kritis.KindAdmissionAllowlist, "admissionallowlists"),
		kindOf(horkos.GroupVersion, horkos.KindClusterAttestationPolicy, "clusterattestationpolicies"),
		kindOf(horkos.GroupVersion, horkos.KindImageRevocation, "imagerevocations"),
		kindOf(crds.NotationGroupVersion, crds.KindTrustPolicy, "trustpolicies"),
		kindOf(crds.NotationGroupVersion, crds.KindTrustStore, "truststores"),
	}
}

func kindOf(apiVersion, name, plural string) Kind {
	return Kind{Name: name, APIVersion: apiVersion, Resource: resource(apiVersion, plural)}
}

func resource(apiVersion, plural string) mirror.Resource {
	group, version, _ := strings.Cut(apiVersion, "/")
	return mirror.Resource{GroupVersionResource: schema.GroupVersionResource{Group: group, Version: version, Resource: plural}}
}

// Nodes are the nodes of the cluster, of which the names are enough.
func Nodes() mirror.Resource {
	return mirror.Resource{GroupVersionResource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, MetadataOnly: true}
}

// NodeGates are what the gates of nodes tell about themselves.
func NodeGates() mirror.Resource { return resource(horkos.GroupVersion, "nodegates") }
