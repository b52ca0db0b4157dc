package webhook

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

// SecretType is the type of the Secret. A Secret of another type is somebody else's, and the
// API server lets nobody change the type.
const SecretType = "horkos.dev/webhook-tls"

const (
	lookEvery = 30 * time.Second // nothing that is due is late by more
	// pause is between steps: somebody who takes back what is written is not fought faster.
	pause = 100 * time.Millisecond
	// What failed is tried again after firstRetry, doubling up to lastRetry.
	firstRetry = 500 * time.Millisecond
	lastRetry  = time.Minute
	// maxSkew is how far from the API server's clock a replica may make certificates.
	maxSkew = 5 * time.Minute
)

var (
	errAgain   = errors.New("another replica was first")
	errNotOurs = errors.New("somebody else made it, and it is left alone")
)

// KeeperOptions are what a Keeper works with.
type KeeperOptions struct {
	Client         dynamic.Interface
	Namespace      string
	Secret         string   // its name
	Configurations []string // ValidatingWebhookConfigurations whose caBundle is kept
	Names          []string // that the server is called by
	Addresses      []net.IP
	Schedule       Schedule

	Metrics *Metrics
	Log     *slog.Logger
	Now     func() time.Time
}

// Keeper makes the certificates of the server, keeps them in a Secret, renews them, and has the
// API server believe them. Any number of replicas may keep one Secret.
//
// Deleting the Secret makes a new authority: what is shown goes on until the new one is
// believed. What is broken in the Secret by hand is mended. What is not Horkos' is left alone.
type Keeper struct {
	options  KeeperOptions
	cluster  cluster
	chance   float64
	news     chan struct{}
	secret   *seen
	injected map[string]*seen // by the name of the configuration

	// Of the goroutine of Run.
	heldBy  *x509.Certificate
	since   map[[sha256.Size]byte]time.Time // when an authority was first seen to be believed
	trusted *pair                           // what is shown, if API servers were taken to know its authority
	tries   int
	told    string
	unasked bool // no configuration is there

	held     atomic.Pointer[pair]
	shown    atomic.Pointer[tls.Certificate]
	problems atomic.Pointer[[]string]
}

// NewKeeper makes a Keeper; nothing is asked before Run.
func NewKeeper(o KeeperOptions) *Keeper {
	k := newKeeper(o)
	k.cluster = &apiServer{secrets: o.Client.Resource(secrets).Namespace(o.Namespace), configurations: o.Client.Resource(configurations), name: o.Secret}
	return k
}

func newKeeper(o KeeperOptions) *Keeper {
	if o.Schedule == (Schedule{}) {
		o.Schedule = DefaultSchedule()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	k := &Keeper{options: o, chance: rand.Float64(), news: make(chan struct{}, 1), injected: make(map[string]*seen), since: make(map[[sha256.Size]byte]time.Time)}
	changed := func() {
		select {
		case k.news <- struct{}{}:
		default: // it is told already
		}
	}
	k.secret = &seen{changed: changed}
	for _, name := range o.Configurations {
		k.injected[name] = &seen{changed: changed}
	}
	k.problems.Store(&[]string{"the Secret " + k.secretName() + " is not read yet"})
	return k
}

func (k *Keeper) secretName() string { return k.options.Namespace + "/" + k.options.Secret }

// GetCertificate is for a tls.Config. It fails closed while there is none.
func (k *Keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := k.shown.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("there is no certificate yet")
}

// Problems are why the server is not ready; none when it is.
func (k *Keeper) Problems() []string { return *k.problems.Load() }

// Run keeps the certificates until the context ends. What fails is tried again.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		k.secret.follow(ctx, k.options.Client.Resource(secrets).Namespace(k.options.Namespace), k.options.Secret)
	})
	for name, s := range k.injected {
		watching.Go(func() { s.follow(ctx, k.options.Client.Resource(configurations), name) })
	}
	for {
		again := time.NewTimer(k.look(ctx))
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-k.news:
			again.Reset(pause)
			select {
			case <-ctx.Done():
			case <-again.C:
			}
		case <-again.C:
		}
		again.Stop()
	}
}

// look takes a step, and tells when to take the next if nothing changes before.
func (k *Keeper) look(ctx context.Context) time.Duration {
	err := k.step(ctx)
	k.review(err)
	switch {
	case errors.Is(err, errAgain):
		return firstRetry + rand.N(firstRetry)
	case err != nil:
		wait := lastRetry
		if k.tries < 10 {
			wait = min(lastRetry, firstRetry<<k.tries)
		}
		k.tries++
		return wait + rand.N(wait/2)
	}
	k.tries = 0
	return max(pause, min(lookEvery, k.options.Schedule.Settle/2, k.options.Schedule.Overlap/2))
}

// step brings the Secret, what is shown and what is believed one step on. What it writes
// comes back by the watch, and is the next step's.
func (k *Keeper) step(ctx context.Context) error {
	object, known := k.secret.get()
	if !known {
		return nil
	}
	have, _, why, err := k.plan(object)
	if err != nil {
		return err
	}
	if len(why) > 0 {
		if have, err = k.mend(ctx, have); errors.Is(err, errNotOurs) {
			return err
		}
	}
	// What cannot be written now is no reason not to show what is there.
	k.adopt(have)
	if errors.Is(err, errAgain) {
		return err
	}
	return errors.Join(err, k.inject(ctx, have))
}

// mend writes what the Secret is to hold, and gives what it holds then, as far as that is known.
func (k *Keeper) mend(ctx context.Context, before material) (material, error) {
	object, err := k.fresh(ctx)
	if err != nil {
		return before, err
	}
	have, want, why, err := k.plan(object)
	if err != nil || len(why) == 0 {
		return have, err
	}
	if err := k.write(ctx, object, want, why); err != nil {
		return have, err
	}
	return want, nil
}

// fresh reads the Secret anew; nil where there is none. A watch lags.
func (k *Keeper) fresh(ctx context.Context) (*unstructured.Unstructured, error) {
	object, err := k.cluster.Secret(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the Secret %s: %w", k.secretName(), err)
	}
	return object, nil
}

func (k *Keeper) plan(object *unstructured.Unstructured) (have, want material, why []string, err error) {
	if object != nil {
		data, err := k.dataOf(object)
		if err != nil {
			return have, want, nil, err
		}
		have, why = decodeMaterial(data)
		if len(data) == 0 {
			why = []string{"the Secret is empty"}
		}
	} else {
		why = []string{"there is no Secret"}
	}
	want, reasons, err := k.options.Schedule.next(have, k.situation())
	if err != nil {
		return have, want, nil, err
	}
	return have, want, append(why, reasons...), nil
}

// dataOf is what is in the Secret, where it is Horkos'.
func (k *Keeper) dataOf(object *unstructured.Unstructured) (map[string][]byte, error) {
	if kind, _, _ := unstructured.NestedString(object.Object, "type"); kind != SecretType {
		return nil, fmt.Errorf("the Secret %s is of type %q, not %s: %w; delete it, or give a certificate by --tls-cert-file and --tls-key-file",
			k.secretName(), kind, SecretType, errNotOurs)
	}
	data := make(map[string][]byte)
	for _, key := range []string{keyBundle, keySigner, keyServing, keyServingKey} {
		text, found, _ := unstructured.NestedString(object.Object, "data", key)
		if !found {
			continue
		}
		value, err := base64.StdEncoding.DecodeString(text)
		if err != nil { // the API server gives no such thing
			return nil, fmt.Errorf("read the Secret %s: %s is not base64", k.secretName(), key)
		}
		data[key] = value
	}
	return data, nil
}

func (k *Keeper) situation() situation {
	at := situation{now: k.options.Now(), chance: k.chance, names: k.options.Names, addresses: k.options.Addresses, held: k.held.Load(), heldBy: k.heldBy}
	for _, name := range k.options.Configurations {
		if object, _ := k.injected[name].get(); object != nil {
			for _, bundle := range bundlesOf(object) {
				if all, err := decodeCertificates(bundle); err == nil && len(at.believed)+len(all) <= maxBundled {
					at.believed = append(at.believed, all...)
				}
			}
		}
	}
	return at
}

// write writes the Secret as it is to be, in the place of the one that was read, or as the
// first. It is tried dry before: the answer bears the time of the API server, and certificates
// made by a clock that is wrong would be refused by it, those of the other replicas with them.
func (k *Keeper) write(ctx context.Context, old *unstructured.Unstructured, want material, why []string) error {
	object, err := k.object(old, want)
	if err != nil {
		return err
	}
	put := k.cluster.Update
	if old == nil {
		put = k.cluster.Create
	}
	tried, err := put(ctx, object, true)
	if err == nil {
		if err := k.checkClock(tried); err != nil {
			return err
		}
		_, err = put(ctx, object, false)
	}
	switch {
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || (old != nil && apierrors.IsNotFound(err)):
		return errAgain
	case err != nil && old == nil && apierrors.IsForbidden(err):
		return fmt.Errorf("make the Secret %s: %w; allow it, or make an empty Secret of that name and of type %s", k.secretName(), err, SecretType)
	case err != nil:
		return fmt.Errorf("write the Secret %s: %w", k.secretName(), err)
	}
	k.options.Log.Info("the certificates of the webhook were written", "secret", k.secretName(), "because", strings.Join(why, "; "),
		"serving until", want.serving.certificate.NotAfter, "authority until", want.signer.certificate.NotAfter)
	k.options.Metrics.writes.Inc()
	return nil
}

func (k *Keeper) object(old *unstructured.Unstructured, want material) (*unstructured.Unstructured, error) {
	data, err := want.encode()
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "type": SecretType}}
	object.SetNamespace(k.options.Namespace)
	object.SetName(k.options.Secret)
	object.SetLabels(map[string]string{"app.kubernetes.io/part-of": "horkos"})
	if old != nil {
		object = old.DeepCopy()
	}
	for key, value := range data {
		if err := unstructured.SetNestedField(object.Object, base64.StdEncoding.EncodeToString(value), "data", key); err != nil {
			return nil, fmt.Errorf("write the Secret %s: %w", k.secretName(), err)
		}
	}
	return object, nil
}

// checkClock compares this clock with the API server's, as a dry write of now shows it.
func (k *Keeper) checkClock(tried *unstructured.Unstructured) error {
	var then time.Time
	for _, entry := range tried.GetManagedFields() {
		if entry.Manager == fieldManager && entry.Time != nil && entry.Time.After(then) {
			then = entry.Time.Time
		}
	}
	now := k.options.Now()
	if skew := now.Sub(then).Abs(); !then.IsZero() && skew > maxSkew {
		return fmt.Errorf("the clock of this replica (%s) is %s from the API server's (%s): it makes no certificates; set the clock of its node right",
			now.UTC().Format(time.RFC3339), skew.Round(time.Second), then.UTC().Format(time.RFC3339))
	}
	return nil
}

// adopt shows the certificate of the Secret, at once where nothing better is shown, else when
// the API server is known to believe it.
func (k *Keeper) adopt(m material) {
	k.notice()
	now, held := k.options.Now(), k.held.Load()
	if m.serving == nil || m.serving.same(held) {
		return
	}
	issuer := issuerOf(m.serving.certificate, m.bundle)
	if held != nil && k.heldBy != nil && holds(held.certificate, now) && holds(k.heldBy, now) {
		if verify(m.serving.certificate, m.bundle, now) != nil || !k.settled(issuer, now) {
			return
		}
	}
	k.heldBy = issuer
	k.held.Store(m.serving)
	k.shown.Store(m.serving.tls())
	k.options.Metrics.expiry.Set(float64(m.serving.certificate.NotAfter.Unix()))
	k.options.Log.Info("another certificate is shown", "serial", m.serving.certificate.SerialNumber.Text(16), "until", m.serving.certificate.NotAfter)
}

// tellUnasked says once that there is no configuration to tell whom to believe: it may come yet, or
// bear another name.
func (k *Keeper) tellUnasked(is bool) {
	if is && !k.unasked {
		k.options.Log.Warn("there is no ValidatingWebhookConfiguration of that name: no API server is told whom to believe",
			"names", strings.Join(k.options.Configurations, ", "))
	}
	k.unasked = is
}

// review tells why the server is not ready, and says each error once.
func (k *Keeper) review(err error) {
	var problems []string
	switch text := ""; {
	case err != nil && !errors.Is(err, errAgain):
		if text = err.Error(); text != k.told {
			k.options.Log.Error("the certificates of the webhook cannot be kept, trying again", "error", err)
		}
		k.told = text
		k.options.Metrics.failing.Set(1)
	case err == nil:
		k.told = ""
		k.options.Metrics.failing.Set(0)
	}
	bundles, known := k.bundles()
	k.tellUnasked(known && len(bundles) == 0)
	switch {
	case k.held.Load() == nil && k.told != "":
		problems = []string{"no certificate is shown: " + k.told}
	case k.held.Load() == nil:
		problems = []string{"no certificate is shown: the Secret " + k.secretName() + " is not read yet"}
	case !known:
		problems = []string{"not read yet: the ValidatingWebhookConfigurations " + strings.Join(k.options.Configurations, ", ")}
	case len(bundles) > 0 && (k.heldBy == nil || !(material{bundle: k.inAll()}).believes(k.heldBy)):
		text := "the API server does not believe the certificate that is shown: it is not in the caBundle of " + strings.Join(k.options.Configurations, ", ")
		if k.told != "" {
			text += ": " + k.told
		}
		problems = []string{text}
	case len(bundles) > 0 && k.early():
		problems = []string{"the API server is given time to believe a new authority"}
	default:
		k.trusted = k.held.Load() // another authority beside its own changes nothing
	}
	k.problems.Store(&problems)
}
