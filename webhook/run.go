package webhook

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/objects"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/image"
	"github.com/horkos/horkos/verifier/policy"
	attestations "github.com/horkos/horkos/verifier/source/cluster"
	"github.com/horkos/horkos/webhook/admission"
	"github.com/horkos/horkos/webhook/breakglass"
)

// Config is how the webhook is run.
type Config struct {
	Kubeconfig string // empty: as a pod reaches the API server
	Namespace  string // of its Secret
	Name       string // of this replica, in events and records

	Address       string // of reviews, HOST:PORT
	HealthAddress string
	StateDir      string // keeps what was in force last, evidence, and the audit log

	DefaultAction verifier.DefaultAction
	DryRun        bool

	// CertFile and KeyFile are given, by cert-manager for example; empty: they are made and
	// kept in the Secret, and Configuration is told of them.
	CertFile, KeyFile string
	Secret            string
	Configuration     string   // of the ValidatingWebhookConfiguration
	Names             []string // that the API server calls it by
	Addresses         []net.IP
	Lifetime          time.Duration // of the certificates that are made; zero: DefaultLifetime

	// ClientCAFile has the authorities of the certificates that clients must show; empty: anybody
	// may ask. ClientNames are names of which they must bear one; empty: any will do.
	ClientCAFile string
	ClientNames  []string

	ShutdownDelay time.Duration
	MaximumAge    time.Duration
}

// missingFor is how long at most an image that nothing was known of is taken for such:
// whoever attests it applies the attestation and then the pod.
const missingFor = 5 * time.Second

// What is asked of the API server in a second: users wait for it, when a new replica is asked
// about the pods of a roll-out and knows no image yet.
const (
	apiRate  = 200
	apiBurst = 400
)

// process is the webhook put together.
type process struct {
	config   Config
	log      *slog.Logger
	gates    *gate.Metrics
	server   *apiserver.Server
	objects  *objects.Cluster
	compiler policy.Compiler
	snapshot atomic.Pointer[policy.Snapshot]
	set      atomic.Pointer[crds.Set]
	heard    atomic.Bool // of all that the cluster holds, since the start

	metrics      *Metrics
	certificates certificatesOf
	key          *breakglass.Keeper // of tokens
}

// Run runs the webhook until the context ends, and serves on while it is told that it leaves
// (Config.ShutdownDelay). It returns an error when it cannot start or a part of it fails for good.
func Run(ctx context.Context, config Config, version string, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	gates, metrics := gate.NewMetrics(registry, version), NewMetrics(registry)
	p := &process{config: config, log: log, gates: gates, metrics: metrics,
		server: apiserver.NewServer(apiserver.Options{Kubeconfig: config.Kubeconfig, Program: "horkos-webhook", Rate: apiRate, Burst: apiBurst}, log)}
	p.snapshot.Store(policy.Compile())
	if err := os.MkdirAll(config.StateDir, 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	synced := gates.Synced.WithLabelValues(string(crds.Cluster)) // 0 is a value, too
	tell := func(at time.Time) { synced.Set(float64(at.Unix())) }
	heard := func(at time.Time) {
		tell(at)
		p.heard.Store(true)
	}
	var err error
	var kept crds.Set
	p.objects, kept, err = objects.OpenCluster(objects.ClusterOptions{StateDir: config.StateDir, Node: config.Name, MaximumAge: config.MaximumAge, OnSynced: heard, Now: time.Now, Log: log})
	if err != nil {
		return err
	}
	if at := p.objects.Status().Synced; !at.IsZero() {
		tell(at)
	}
	p.take(kept)
	records, err := audit.Open(audit.Options{Path: filepath.Join(config.StateDir, "audit.log"), Node: config.Name,
		OnHead: func(seq uint64, _ string) { gates.AuditHead.Set(float64(seq)) }, Log: log, Now: time.Now})
	if err != nil {
		return err
	}
	memory := evidence.NewMemory()
	store := evidence.NewStore(memory, evidence.StoreOptions{Dir: filepath.Join(config.StateDir, "evidence"), Node: config.Name, Now: time.Now,
		OnNode: func() map[image.Identity]bool { return nil }, Log: log})
	asked := attestations.New(p.server)
	asked.Terms.Again = missingFor
	fetcher := evidence.NewFetcher(evidence.FetcherOptions{
		Store: store, Sources: []evidence.Asked{asked},
		Revision: func() string { return p.snapshot.Load().Revision() },
		Applies:  func(keyID string) bool { return len(p.snapshot.Load().Authorities(keyID)) > 0 },
		Settle: func(ctx context.Context, namespace string, q evidence.Question) error {
			return verifier.Settle(ctx, p.snapshot.Load(), memory, namespace, q)
		},
		Observe: gates.Fetched, Log: log,
	})
	objectsOf := func() (dynamic.Interface, error) {
		clients, err := p.server.Clients()
		return clients.Objects, err
	}
	tells := newEvents(objectsOf, config.Name, metrics, log, time.Now)
	glass, key := breakglass.New(objectsOf, config.Namespace, log, time.Now)
	p.key = key
	handler := admission.New(admission.Options{
		Verifier: &waiting{
			decider:  verifier.Decider{Default: config.DefaultAction, Sources: []evidence.Question{{Source: asked.Name, Locator: asked.Locator}}},
			snapshot: p.snapshot.Load, memory: memory, fetcher: fetcher,
		},
		Shell:  gate.Shell{Node: config.Name, Mode: gate.Enforce, AuditFailure: gate.DenyAllowed, Records: records, Metrics: gates, Log: log, Now: time.Now},
		Events: tells, DryRun: config.DryRun, MaxBody: int64(DefaultLimits().Body), Breakglass: glass.Judge,
	})

	files, clients, err := p.given()
	if err != nil {
		return err
	}
	reviews, health, err := p.listen()
	if err != nil {
		return err
	}
	// What reviews need goes on until the last of them is answered, and what is told of them is
	// written after that.
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	group, serving := errgroup.WithContext(serving)
	defer end()
	telling, quiet := context.WithCancel(serving)
	defer quiet()
	told := make(chan struct{})
	group.Go(func() error {
		defer close(told)
		return tells.Run(telling)
	})
	if files != nil {
		p.certificates.set(files)
		group.Go(func() error { return files.Run(serving) })
	}
	if clients != nil {
		group.Go(func() error { return clients.Run(serving) })
	}
	group.Go(func() error { return records.Run(serving) })
	group.Go(func() error { return store.Run(serving) })
	group.Go(func() error { return fetcher.Run(serving) })
	group.Go(func() error { return p.objects.Run(serving, p.take) })
	group.Go(func() error { return p.server.Run(serving, p.follow) })
	served := make(chan error, 1)
	go func() {
		defer end()
		stopping, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		// Where a part failed, nothing is decided any more: another replica is to be asked at once.
		defer context.AfterFunc(serving, func() { reviews.Close() })()
		served <- NewServer(ServerOptions{
			Handler: handler, Certificates: &p.certificates, Clients: clients, Ready: p.problems,
			ShutdownDelay: config.ShutdownDelay, Metrics: metrics, Gatherer: registry, Log: log,
		}).Run(stopping, reviews, health)
		quiet()
		<-told
	}()
	err = group.Wait()
	if serverErr := <-served; serverErr != nil && !errors.Is(serverErr, context.Canceled) {
		return serverErr
	}
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return ctx.Err()
	}
	return err
}

// given reads the files that are given: nil for those that are not.
func (p *process) given() (files *Files, clients *Clients, err error) {
	if p.config.CertFile != "" {
		if files, err = NewFiles(p.config.CertFile, p.config.KeyFile, p.metrics, p.log); err != nil {
			return nil, nil, err
		}
	}
	if p.config.ClientCAFile != "" {
		if clients, err = NewClients(p.config.ClientCAFile, p.config.ClientNames, p.log, time.Now); err != nil {
			return nil, nil, err
		}
	}
	return files, clients, nil
}

// listen listens at both addresses, or at none.
func (p *process) listen() (reviews, health net.Listener, err error) {
	if reviews, err = net.Listen("tcp", p.config.Address); err != nil {
		return nil, nil, fmt.Errorf("listen for reviews: %w", err)
	}
	if health, err = net.Listen("tcp", p.config.HealthAddress); err != nil {
		reviews.Close()
		return nil, nil, fmt.Errorf("listen for health: %w", err)
	}
	return reviews, health, nil
}

// follow does what needs the API server: the policies, and what is kept in Secrets.
func (p *process) follow(ctx context.Context, clients apiserver.Clients) error {
	group, ctx := errgroup.WithContext(ctx)
	if p.config.CertFile == "" {
		keeper := NewKeeper(KeeperOptions{
			Client: clients.Objects, Namespace: p.config.Namespace, Secret: p.config.Secret, Configurations: []string{p.config.Configuration},
			Names: p.config.Names, Addresses: p.config.Addresses, Schedule: ScheduleOf(or(p.config.Lifetime, DefaultLifetime)), Metrics: p.metrics, Log: p.log, Now: time.Now,
		})
		p.certificates.set(keeper)
		group.Go(func() error { return keeper.Run(ctx) })
	}
	group.Go(func() error { return p.key.Run(ctx) })
	group.Go(func() error { return p.objects.Follow(ctx, clients) })
	return group.Wait()
}

// take puts what the cluster holds in force.
func (p *process) take(set crds.Set) {
	snap := p.compiler.Compile(set)
	p.set.Store(&set)
	p.gates.InForce(snap.Revision())
	if before := p.snapshot.Swap(snap); before.Revision() != snap.Revision() {
		p.log.Info("policies are in force", "revision", snap.Revision(), "objects", len(set.Objects), "stale", set.Stale)
	}
}

// problems says why reviews should go to another replica.
func (p *process) problems() []string {
	if set := p.set.Load(); set.Unknown != nil {
		return []string{"policies: " + set.Unknown.Message}
	}
	if !p.heard.Load() { // a policy may have come since what was kept was in force
		return []string{"policies: " + cmp.Or(p.objects.Status().Problem, "those that were kept are not compared with the cluster's yet")}
	}
	return nil
}

// certificatesOf are those of the moment: the Keeper is another when the API server is, or its
// authorities are. Until that one has a certificate, what the one before it shows is shown on.
type certificatesOf struct{ now, before atomic.Pointer[Certificates] }

func (c *certificatesOf) set(next Certificates) {
	if now := c.now.Load(); now != nil {
		if _, err := (*now).GetCertificate(&tls.ClientHelloInfo{}); err == nil {
			c.before.Store(now)
		}
	}
	c.now.Store(&next)
}

// GetCertificate is that of the certificates of the moment.
func (c *certificatesOf) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for _, one := range []*Certificates{c.now.Load(), c.before.Load()} {
		if one == nil {
			continue
		}
		if certificate, err := (*one).GetCertificate(hello); err == nil {
			return certificate, nil
		}
	}
	return nil, errors.New("there is no certificate yet")
}

// Problems are those of the certificates of the moment.
func (c *certificatesOf) Problems() []string {
	if now := c.now.Load(); now != nil {
		return (*now).Problems()
	}
	return []string{"certificate: the API server was not reached yet"}
}
