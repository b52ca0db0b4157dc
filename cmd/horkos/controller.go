package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/horkos/horkos/apiserver"
	"github.com/horkos/horkos/controller"
)

// Requests a second of the controller, and at once: the API server is everybody's.
const (
	controllerRate  = 50
	controllerBurst = 100
)

type controllerFlags struct {
	kubeconfig    string
	namespace     string
	healthAddress string
	lease, grace  time.Duration
	format, level choice
}

func controllerCommand() *cobra.Command {
	var f controllerFlags
	cmd := &cobra.Command{
		Use:     "controller",
		GroupID: groupCluster,
		Short:   "Tell the authors of policies what is wrong with them, by conditions and events (in a pod)",
		Long: `controller runs in the cluster, as the Deployment horkos-controller. It watches policies and
authorities, compiles them as every node does, and writes what came of it into their status:
condition Ready, and condition Warning where an object is hardly what was meant; an event
tells each change. It removes the NodeGates of nodes that have been gone for ten minutes.

Nothing is decided by it: nodes read the objects themselves, and never their status. Of
several replicas one leads, by the Lease horkos-controller, and the others wait. One that
loses the Lease ends with exit code 2, to be started again.`,
		Example: `  # in a pod, with its service account
  horkos controller --health-address :8081

  # from elsewhere
  horkos controller --kubeconfig admin.kubeconfig --log-level debug`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runController(cmd.Context(), cmd.ErrOrStderr(), f)
		},
	}
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "how to reach the API server, a `FILE`; empty: as a pod does")
	cmd.Flags().StringVar(&f.namespace, "namespace", "horkos-system", "the `NAMESPACE` of the Lease")
	cmd.Flags().StringVar(&f.healthAddress, "health-address", "", "serve /healthz and /readyz on `HOST:PORT`; empty: do not")
	cmd.Flags().DurationVar(&f.lease, "lease-duration", 15*time.Second, "how long a leader that went silent is waited for")
	cmd.Flags().DurationVar(&f.grace, "node-grace", controller.Grace, "how long a node is gone before its NodeGate goes")
	for _, name := range []string{"lease-duration", "node-grace"} { // for tests
		_ = cmd.Flags().MarkHidden(name) // fails only for a flag that is not there
	}
	choose(cmd, &f.format, "text", "log-format", "", "how to log", "text", "json")
	choose(cmd, &f.level, "info", "log-level", "", "what to log", "debug", "info", "warn", "error")
	return cmd
}

func runController(ctx context.Context, out io.Writer, f controllerFlags) error {
	if f.grace < time.Second {
		return fmt.Errorf("--node-grace %s: want at least a second", f.grace)
	}
	log, err := newLog(out, f.format.value, f.level.value)
	if err != nil {
		return err
	}
	klog.SetSlogLogger(log) // what client-go has to say
	config, err := apiserver.Config(f.kubeconfig, "horkos-controller")
	if err != nil {
		if f.kubeconfig == "" {
			err = fmt.Errorf("%w; outside of a pod give --kubeconfig FILE", err)
		}
		return err
	}
	config.QPS, config.Burst = controllerRate, controllerBurst
	clients, err := apiserver.Connect(config)
	if err != nil {
		return err
	}
	identity, err := identity()
	if err != nil {
		return err
	}
	election, err := controller.NewElection(config, f.namespace, identity, f.lease)
	if err != nil {
		return err
	}
	work := controller.New(controller.Options{Clients: clients, Identity: identity, Log: log, Now: time.Now, Grace: f.grace})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan struct{})
	if f.healthAddress == "" {
		close(served)
	} else {
		listener, err := net.Listen("tcp", f.healthAddress)
		if err != nil {
			return fmt.Errorf("--health-address: %w", err)
		}
		go func() {
			defer close(served)
			if err := serveController(ctx, listener, election, work); err != nil {
				cancel(err)
			}
		}()
	}
	log.Info("waiting to lead", "identity", identity, "namespace", f.namespace, "lease", controller.LeaseName)
	err = election.Run(ctx, func(ctx context.Context) {
		log.Info("leading", "identity", identity)
		work.Run(ctx)
	})
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	<-served
	return err
}

// newLog makes the log of a program that runs for long.
func newLog(out io.Writer, format, level string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	options := &slog.HandlerOptions{Level: least}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(out, options)), nil
	}
	return slog.New(slog.NewTextHandler(out, options)), nil
}

// identity is the name of this process among the replicas: a pod's name comes back with its
// container, and a Lease that is still held by the one before would be taken for its own.
func identity() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read the name of this host: %w", err)
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return host[:min(len(host), 100)] + "_" + hex.EncodeToString(random[:]), nil
}

// serveController serves health until the context ends. A replica that waits is ready once it
// knows who leads, and the leader once it has listed everything.
func serveController(ctx context.Context, listener net.Listener, election *controller.Election, work *controller.Controller) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := election.Healthy(r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		missing := work.Missing()
		switch leader := election.Leader(); {
		case leader == "":
			http.Error(w, "no leader is known: the API server does not answer, or does not allow the Lease", http.StatusServiceUnavailable)
		case len(missing) > 0:
			http.Error(w, "not listed yet: "+strings.Join(missing, ", "), http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(w, "ok, the leader is", leader)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(limit)
	}()
	err := server.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return fmt.Errorf("serve health: %w", err)
}
