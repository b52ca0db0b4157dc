package webhook

import (
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

	ShutdownDelay time.Duration
	MaximumAge    time.Duration
}

// maxReview bounds a review in bytes: it can hold an object of etcd's 1.5 MiB twice.
const maxReview = 8 << 20

// process is the webhook put together.
type process struct {
	config   Config
	log      *slog.Logger
	server   *apiserver.Server
	objects  *objects.Cluster
	compiler policy.Compiler
	snapshot atomic.Pointer[policy.Snapshot]
	set      atomic.Pointer[crds.Set]
	swept    chan struct{}
}

// Run runs the webhook until the context ends, and serves on while it is told that it leaves
// (Config.ShutdownDelay). It returns an error when it cannot start or a part of it fails for good.
func Run(ctx context.Context, config Config, version string, log *slog.Logger) error {
	registry := prometheus.NewRegistry()
	gates, metrics := gate.NewMetrics(registry, version), NewMetrics(registry)
	p := &process{config: config, log: log, swept: make(chan struct{}, 1),
		server: apiserver.NewServer(apiserver.Options{Kubeconfig: config.Kubeconfig, Program: "horkos-webhook"}, log)}
	p.snapshot.Store(policy.Compile())
	if err := os.MkdirAll(config.StateDir, 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	var err error
	var kept crds.Set
	p.objects, kept, err = objects.OpenCluster(objects.ClusterOptions{StateDir: config.StateDir, Node: config.Name, MaximumAge: config.MaximumAge, Now: time.Now, Log: log})
	if err != nil {
		return err
	}
	p.take(kept)
	records, err := audit.Open(audit.Options{Path: filepath.Join(config.StateDir, "audit.log"), Node: config.Name,
		MaxBytes: audit.DefaultMaxBytes, MaxFiles: 1, OnHead: func(seq uint64, _ string) { gates.AuditHead.Set(float64(seq)) }, Log: log, Now: time.Now})
	if err != nil {
		return err
	}
	memory := evidence.NewMemory()
	store := evidence.NewStore(memory, evidence.StoreOptions{Dir: filepath.Join(config.StateDir, "evidence"), Node: config.Name, Now: time.Now,
		OnNode: func() map[image.Identity]bool { return nil }, Log: log})
	asked := attestations.New(p.server)
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
	glass, glassKey := breakglass.New(objectsOf, config.Namespace, log, time.Now)
	handler := admission.New(admission.Options{
		Verifier: &waiting{
			decider:  verifier.Decider{Default: config.DefaultAction, Sources: []evidence.Question{{Source: asked.Name, Locator: asked.Locator}}},
			snapshot: p.snapshot.Load, memory: memory, fetcher: fetcher,
		},
		Shell:  gate.Shell{Node: config.Name, Mode: gate.Enforce, AuditFailure: gate.DenyAllowed, Records: records, Metrics: gates, Log: log, Now: time.Now},
		Events: tells, DryRun: config.DryRun, MaxBody: maxReview, Breakglass: glass.Judge,
	})

	reviews, err := net.Listen("tcp", config.Address)
	if err != nil {
		return fmt.Errorf("listen for reviews: %w", err)
	}
	health, err := net.Listen("tcp", config.HealthAddress)
	if err != nil {
		reviews.Close()
		return fmt.Errorf("listen for health: %w", err)
	}
	// What reviews need goes on until the last of them is answered.
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	group, serving := errgroup.WithContext(serving)
	defer end()
	certificates := &certificatesOf{}
	if config.CertFile != "" {
		files, err := NewFiles(config.CertFile, config.KeyFile, metrics, log)
		if err != nil {
			reviews.Close()
			health.Close()
			return err
		}
		certificates.set(files)
		group.Go(func() error { return files.Run(serving) })
	}
	group.Go(func() error { return records.Run(serving) })
	group.Go(func() error { return store.Run(serving) })
	group.Go(func() error { return fetcher.Run(serving) })
	group.Go(func() error { return tells.Run(serving) })
	group.Go(func() error { return glassKey.Run(serving) })
	group.Go(func() error { return p.objects.Run(serving, p.take) })
	group.Go(func() error {
		return p.server.Run(serving, func(ctx context.Context, clients apiserver.Clients) error {
			return p.follow(ctx, clients, certificates, metrics)
		})
	})
	served := make(chan error, 1)
	go func() {
		defer end()
		stopping, stop := context.WithCancel(serving)
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		served <- NewServer(ServerOptions{
			Handler: handler, Certificates: certificates, Ready: func() []string { return p.problems(certificates) },
			ShutdownDelay: config.ShutdownDelay, Metrics: metrics, Gatherer: registry, Log: log,
		}).Run(stopping, reviews, health)
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

// follow does what needs the API server: the policies, and the certificate in its Secret.
func (p *process) follow(ctx context.Context, clients apiserver.Clients, certificates *certificatesOf, metrics *Metrics) error {
	group, ctx := errgroup.WithContext(ctx)
	if p.config.CertFile == "" {
		keeper := NewKeeper(KeeperOptions{
			Client: clients.Objects, Namespace: p.config.Namespace, Secret: p.config.Secret, Configurations: []string{p.config.Configuration},
			Names: p.config.Names, Addresses: p.config.Addresses, Schedule: ScheduleOf(or(p.config.Lifetime, DefaultLifetime)), Metrics: metrics, Log: p.log, Now: time.Now,
		})
		certificates.set(keeper)
		group.Go(func() error { return keeper.Run(ctx) })
	}
	group.Go(func() error { return p.objects.Follow(ctx, clients) })
	return group.Wait()
}

// take puts what the cluster holds in force.
func (p *process) take(set crds.Set) {
	snap := p.compiler.Compile(set)
	p.set.Store(&set)
	if before := p.snapshot.Swap(snap); before.Revision() != snap.Revision() {
		p.log.Info("policies are in force", "revision", snap.Revision(), "objects", len(set.Objects), "stale", set.Stale)
	}
}

// problems says why reviews should go to another replica.
func (p *process) problems(certificates *certificatesOf) []string {
	var all []string
	if set := p.set.Load(); set.Unknown != nil {
		all = append(all, "policies: "+set.Unknown.Message)
	}
	return append(all, certificates.Problems()...)
}

// certificatesOf are those of the moment: the Keeper is another when the API server is.
type certificatesOf struct{ now atomic.Pointer[Certificates] }

func (c *certificatesOf) set(now Certificates) { c.now.Store(&now) }

// GetCertificate is that of the certificates of the moment.
func (c *certificatesOf) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if now := c.now.Load(); now != nil {
		return (*now).GetCertificate(hello)
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
