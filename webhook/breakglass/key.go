package breakglass

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// The Secret of the key. One of another type is somebody else's.
const (
	SecretName = "horkos-breakglass"
	SecretType = "horkos.dev/breakglass"
	secretKey  = "key"
)

const (
	// keptFor is how long a key is used without reading it again: reviews that fail cost the
	// API server no more than that.
	keptFor   = 2 * time.Second
	lookEvery = time.Minute
	retry     = 5 * time.Second
)

var (
	secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}

	// ErrEmpty tells of a Secret that no webhook has filled yet.
	ErrEmpty = errors.New("it is empty")
)

// Keeper keeps the key in the Secret, which it fills where it is empty, and gives it. Any
// number of replicas may keep one Secret. To give up all tokens, empty it.
type Keeper struct {
	client    func() (dynamic.Interface, error)
	namespace string
	log       *slog.Logger
	now       func() time.Time

	reading chan struct{} // held by who reads, and uses the two below
	key     []byte
	read    time.Time
}

// NewKeeper makes a Keeper; nothing is asked before it is run or used.
func NewKeeper(client func() (dynamic.Interface, error), namespace string, log *slog.Logger, now func() time.Time) *Keeper {
	return &Keeper{client: client, namespace: namespace, log: log, now: now, reading: make(chan struct{}, 1)}
}

// Key is the key as the Secret has it, or had it a moment ago.
func (k *Keeper) Key(ctx context.Context) ([]byte, error) {
	select {
	case k.reading <- struct{}{}:
		defer func() { <-k.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if age := k.now().Sub(k.read); k.key != nil && age >= 0 && age < keptFor {
		return bytes.Clone(k.key), nil
	}
	k.key = nil
	client, err := k.client()
	if err != nil {
		return nil, fmt.Errorf("read the key of tokens: %w", err)
	}
	key, err := Key(ctx, client, k.namespace)
	if err != nil {
		return nil, err
	}
	k.key, k.read = key, k.now()
	return bytes.Clone(key), nil
}

// Key reads the key of the webhook in a namespace.
func Key(ctx context.Context, client dynamic.Interface, namespace string) ([]byte, error) {
	object, err := client.Resource(secrets).Namespace(namespace).Get(ctx, SecretName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the Secret %s/%s: %w", namespace, SecretName, err)
	}
	key, err := keyOf(object)
	if err != nil {
		return nil, fmt.Errorf("read the Secret %s/%s: %w", namespace, SecretName, err)
	}
	return key, nil
}

// keyOf is the key in the Secret; ErrEmpty where there is none yet. No error repeats it.
func keyOf(object *unstructured.Unstructured) ([]byte, error) {
	if kind, _, _ := unstructured.NestedString(object.Object, "type"); kind != SecretType {
		return nil, fmt.Errorf("it is of type %.80q, not %s: delete it and apply that of the manifests", kind, SecretType)
	}
	data, isMap := object.Object["data"].(map[string]any)
	switch {
	case !isMap && object.Object["data"] != nil:
		return nil, errors.New("its data cannot be read")
	case len(data) == 0:
		return nil, ErrEmpty
	}
	text, _ := data[secretKey].(string)
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != KeySize {
		return nil, fmt.Errorf("its %s is not of %d bytes: empty its data, and the webhook makes another", secretKey, KeySize)
	}
	return key, nil
}

// Run fills the Secret when it is empty, until the context ends.
func (k *Keeper) Run(ctx context.Context) error {
	told := ""
	for {
		wait := lookEvery
		err := k.fill(ctx)
		switch {
		case err == nil:
			told = ""
		case ctx.Err() == nil:
			wait = retry
			if err.Error() != told {
				told = err.Error()
				k.log.Warn("there is no key for tokens of breakglass, trying again", "error", err)
			}
		}
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C:
		}
	}
}

// fill puts a key into the Secret if there is none, in the place of what was read. The
// Secret itself comes with the manifests: the webhook may make none.
func (k *Keeper) fill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	client, err := k.client()
	if err != nil {
		return err
	}
	secret := client.Resource(secrets).Namespace(k.namespace)
	object, err := secret.Get(ctx, SecretName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the Secret %s/%s: %w", k.namespace, SecretName, err)
	}
	if _, err := keyOf(object); !errors.Is(err, ErrEmpty) {
		return err
	}
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	if object.GetResourceVersion() == "" {
		return errors.New("the Secret has no resourceVersion: another replica's key could be written over")
	}
	object.Object["data"] = map[string]any{secretKey: base64.StdEncoding.EncodeToString(key)}
	_, err = secret.Update(ctx, object, metav1.UpdateOptions{FieldManager: "horkos-webhook"})
	switch {
	case apierrors.IsConflict(err): // another replica was first
		return nil
	case err != nil:
		return fmt.Errorf("write the Secret %s/%s: %w", k.namespace, SecretName, err)
	}
	k.log.Info("the key for tokens of breakglass was made", "secret", k.namespace+"/"+SecretName)
	return nil
}
