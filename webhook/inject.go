package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// bundlesOf are the caBundles of a configuration, one a webhook; empty where there is none, or
// nothing that can be read.
func bundlesOf(configuration *unstructured.Unstructured) (all [][]byte) {
	for _, hook := range webhooksOf(configuration) {
		all = append(all, hook.bundle)
	}
	return all
}

type hook struct {
	name   string
	bundle []byte
}

func webhooksOf(configuration *unstructured.Unstructured) (all []hook) {
	list, _, _ := unstructured.NestedSlice(configuration.Object, "webhooks")
	for _, entry := range list {
		fields, _ := entry.(map[string]any)
		name, _, _ := unstructured.NestedString(fields, "name")
		text, _, _ := unstructured.NestedString(fields, "clientConfig", "caBundle")
		bundle, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			bundle = nil
		}
		all = append(all, hook{name, bundle})
	}
	return all
}

// patchOf is what gives all webhooks of a configuration the bundle, and nothing else; nil where
// they have it. Each is tested to be the one that was looked at: the list may have changed.
func patchOf(configuration *unstructured.Unstructured, bundle []byte) ([]byte, error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value"`
	}
	var patch []operation
	for i, hook := range webhooksOf(configuration) {
		if !bytes.Equal(hook.bundle, bundle) {
			at := fmt.Sprintf("/webhooks/%d", i)
			patch = append(patch,
				operation{"test", at + "/name", hook.name},
				operation{"add", at + "/clientConfig/caBundle", base64.StdEncoding.EncodeToString(bundle)})
		}
	}
	if patch == nil {
		return nil, nil
	}
	return json.Marshal(patch)
}

// inject has the API server believe the bundle, where it does not.
func (k *Keeper) inject(ctx context.Context, m material) error {
	var errs []error
	for _, name := range k.options.Configurations {
		object, _ := k.injected[name].get()
		if object == nil || !k.fit(m) {
			continue // it will be told when there is one
		}
		if patch, err := patchOf(object, encodeCertificates(m.bundle...)); patch == nil && err == nil {
			continue
		}
		if err := k.give(ctx, name, object); err != nil {
			errs = append(errs, fmt.Errorf("give %s the bundle: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// fit tells whether a bundle may be given: it must not take away what this replica shows.
func (k *Keeper) fit(m material) bool {
	return m.signer != nil && (k.heldBy == nil || m.believes(k.heldBy) || !holds(k.heldBy, k.options.Now()))
}

// give gives a configuration the bundle of the Secret as it is now: a replica whose watch lags
// would put an older one in the place of a newer.
func (k *Keeper) give(ctx context.Context, name string, configuration *unstructured.Unstructured) error {
	object, err := k.fresh(ctx)
	if err != nil || object == nil {
		return err
	}
	data, err := k.dataOf(object)
	if err != nil {
		return err
	}
	m, _ := decodeMaterial(data)
	if !k.fit(m) {
		return nil // the Secret is mended first
	}
	patch, err := patchOf(configuration, encodeCertificates(m.bundle...))
	if err != nil || patch == nil {
		return err
	}
	switch err := k.cluster.Inject(ctx, name, patch); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	k.options.Log.Info("the API server is given the bundle of the webhook", "configuration", name, "authorities", len(m.bundle))
	k.options.Metrics.injections.Inc()
	return nil
}
