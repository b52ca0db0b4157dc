// Package source is where evidence is asked for: it makes the sources that a node's
// configuration names. How each kind of them answers is in a package of its own.
package source

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxSources bounds the sources of a node.
const MaxSources = 8

// Defaults of what an entry does not say.
const (
	defaultFresh   = 5 * time.Minute
	defaultTimeout = 10 * time.Second
)

// Bounds of what an entry says. An answer that is fresh for less than a second would have
// every image asked for all the time.
const (
	minFresh   = time.Second
	maxFresh   = 24 * time.Hour
	minTimeout = 100 * time.Millisecond
	maxTimeout = time.Minute
)

// Config is one entry of `sources:` in a node's configuration. Durations are text as Go
// writes them, such as 5m; empty: the default.
type Config struct {
	Name string `json:"name"` // in metrics and messages: a DNS label
	Type string `json:"type"` // the kind of source: http

	URL       string `json:"url"`
	Insecure  bool   `json:"insecure,omitempty"`  // plain http to another host than this one
	CAFile    string `json:"caFile,omitempty"`    // PEM; in place of the system's authorities
	TokenFile string `json:"tokenFile,omitempty"` // a bearer token

	Fresh   string `json:"fresh,omitempty"`   // so long an answer is taken for what the source holds; 5m
	Stale   string `json:"stale,omitempty"`   // so long it is used while the source does not answer; 0: without end
	Timeout string `json:"timeout,omitempty"` // of one question; 10s
}

// reserved are the names of the origins of objects.
var reserved = map[string]bool{"folder": true, "cluster": true}

// checkName says what is wrong with the name of a source.
func checkName(name string, taken map[string]bool) error {
	switch {
	case name == "":
		return errors.New("name: give the source a name, such as attestations")
	case !isLabel(name):
		return fmt.Errorf("name: want at most 63 of a-z, 0-9 and inner dashes, not %.80q", name)
	case reserved[name]:
		return fmt.Errorf("name: %s is the name of an origin of objects; take another", name)
	case taken[name]:
		return fmt.Errorf("name: %s is there twice; give each source a name of its own", name)
	}
	return nil
}

func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// times are the durations of an entry.
type times struct{ fresh, stale, timeout time.Duration }

func (c *Config) times() (t times, problems []error) {
	read := func(field, text string, otherwise time.Duration) time.Duration {
		if text == "" {
			return otherwise
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: want a duration such as 90s, 5m or 24h, not %.40q", field, text))
			return otherwise
		}
		return d
	}
	t.fresh = read("fresh", c.Fresh, defaultFresh)
	t.stale = read("stale", c.Stale, 0)
	t.timeout = read("timeout", c.Timeout, defaultTimeout)
	if t.fresh < minFresh || t.fresh > maxFresh {
		problems = append(problems, fmt.Errorf("fresh: want %v to %v, not %v", minFresh, maxFresh, t.fresh))
	}
	if t.stale < 0 || (t.stale > 0 && t.stale < t.fresh) {
		problems = append(problems, fmt.Errorf("stale: want 0, which is without end, or at least the %v of fresh, not %v", t.fresh, t.stale))
	}
	if t.timeout < minTimeout || t.timeout > maxTimeout {
		problems = append(problems, fmt.Errorf("timeout: want %v to %v, not %v", minTimeout, maxTimeout, t.timeout))
	}
	return t, problems
}
