package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/horkos/horkos/state"
)

const (
	// rereadEvery is how often it is looked whether the configuration has changed.
	rereadEvery = 10 * time.Second
	// A configuration that cannot be read is tried again after minWait, then twice as long, up
	// to maxWait. Only files of this machine are read.
	minWait = 250 * time.Millisecond
	maxWait = 15 * time.Second
)

// ErrNotConnected is in the chain of the error of a Server that has no clients.
var ErrNotConnected = errors.New("not connected to the API server")

// Server is the API server to a daemon that runs for long: also before there is a kubeconfig,
// and when another takes its place. Safe for concurrent use.
type Server struct {
	options Options
	log     *slog.Logger

	mu      sync.Mutex
	clients Clients
	none    error // why there are no clients
}

// NewServer makes a Server that has no clients before Run.
func NewServer(o Options, log *slog.Logger) *Server {
	s := &Server{options: o, log: log}
	s.set(Clients{}, errors.New("how to reach it is not read yet"))
	return s
}

// Clients are those of the moment; the error says why there are none.
func (s *Server) Clients() (Clients, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients, s.none
}

func (s *Server) set(c Clients, none error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients, s.none = c, nil
	if none != nil {
		s.none = fmt.Errorf("%w: %w", ErrNotConnected, none)
	}
}

// Get is that of the clients of the moment.
func (s *Server) Get(ctx context.Context, path string, limit int) (status int, body []byte, err error) {
	c, err := s.Clients()
	if err != nil {
		return 0, nil, err
	}
	return c.Get(ctx, path, limit)
}

// Run calls do with clients once a configuration can be read, and until the context ends.
// When the kubeconfig or the authorities of the server change, as they do when a node
// joins another cluster, the context of do ends, its connections are closed, and when it has
// returned, do is called with new clients: what it knows from the server before must not be
// carried on by a watch. A configuration that cannot be read any more changes nothing;
// one that others than its owner may have written (Options.Owned) ends the connection until
// that is put right. Run returns what do returned when it ended by itself.
func (s *Server) Run(ctx context.Context, do func(context.Context, Clients) error) error {
	for {
		clients, found, err := s.wait(ctx)
		if err != nil {
			return err
		}
		s.set(clients, nil)
		changed, err := s.during(ctx, clients, found, do)
		s.set(Clients{}, errors.New("how to reach it is read again"))
		clients.Close()
		if !changed {
			return err
		}
	}
}

// wait reads the configuration until that succeeds. The error is that of the context.
func (s *Server) wait(ctx context.Context) (Clients, mark, error) {
	told, pause := "", minWait
	for {
		config, found, err := s.options.read()
		if err == nil {
			var clients Clients
			if clients, err = Connect(config); err == nil {
				s.log.Info("the API server is asked", "server", clients.base.Redacted())
				return clients, found, nil
			}
		}
		s.set(Clients{}, err)
		if told != err.Error() {
			told = err.Error()
			s.log.Warn("the API server cannot be asked: it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return Clients{}, mark{}, ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, maxWait)
	}
}

// during does what is to be done until it returns, the context ends, or the configuration
// is not the one that was found any more.
func (s *Server) during(ctx context.Context, c Clients, found mark, do func(context.Context, Clients) error) (changed bool, err error) {
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(limited, c) }()
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	told := ""
	for {
		select {
		case err := <-done:
			return false, err
		case <-tick.C:
		}
		_, now, err := s.options.read()
		switch {
		case err == nil && now == found:
			told = ""
			continue
		case err == nil:
			s.log.Info("how to reach the API server has changed: connecting anew")
		case errors.Is(err, state.ErrNotOwned):
			s.log.Error("how to reach the API server cannot be believed any more: the connection ends", "error", err)
		default:
			if told != err.Error() {
				told = err.Error()
				s.log.Warn("how to reach the API server cannot be read again: what was read stays", "error", err)
			}
			continue
		}
		cancel()
		c.Close() // what does not mind its context
		<-done
		return true, nil
	}
}
