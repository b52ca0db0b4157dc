// Package apiserver is how Horkos reaches the API server of the cluster, and as whom: on a
// host with the kubelet's client certificate, in a pod with the token of its service account.
package apiserver

import (
	"fmt"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/horkos/horkos/version"
)

// Config reads how to reach the API server: from the kubeconfig file, or, where its path is
// empty, from what a pod is given. Certificates and tokens that are named by files are read
// again when they change.
func Config(kubeconfig, program string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("read how to reach the API server: %w", err)
	}
	config.UserAgent = program + "/" + version.String()
	return config, nil
}

// Clients are what talks to the API server.
type Clients struct {
	Objects  dynamic.Interface
	Metadata metadata.Interface
}

// Connect makes the clients. Nothing is asked yet.
func Connect(config *rest.Config) (Clients, error) {
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return Clients{}, fmt.Errorf("prepare to reach the API server: %w", err)
	}
	objects, err := dynamic.NewForConfigAndClient(config, transport)
	if err != nil {
		return Clients{}, fmt.Errorf("prepare to reach the API server: %w", err)
	}
	meta, err := metadata.NewForConfigAndClient(config, transport)
	if err != nil {
		return Clients{}, fmt.Errorf("prepare to reach the API server: %w", err)
	}
	return Clients{Objects: objects, Metadata: meta}, nil
}
