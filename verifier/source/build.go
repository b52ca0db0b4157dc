package source

import (
	"errors"
	"fmt"
	"io"

	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/source/web"
)

// Build makes the sources that a configuration names. The error says every problem of
// every entry, a line each; there is no source then. Nothing is asked yet: whether a source
// answers is known when it is. Close ends what Build made.
func Build(configs []Config) ([]evidence.Asked, error) {
	if len(configs) > MaxSources {
		return nil, fmt.Errorf("sources: %d of them, want at most %d", len(configs), MaxSources)
	}
	var all []evidence.Asked
	var problems []error
	taken := make(map[string]bool)
	for i := range configs {
		c := &configs[i]
		asked, wrong := build(c)
		if err := checkName(c.Name, taken); err != nil {
			wrong = append([]error{err}, wrong...)
		}
		taken[c.Name] = true
		for _, err := range wrong {
			problems = append(problems, fmt.Errorf("sources[%d]: %w", i, err))
		}
		all = append(all, asked)
	}
	if len(problems) > 0 {
		Close(all)
		return nil, errors.Join(problems...)
	}
	return all, nil
}

// build makes one source, of whichever kind.
func build(c *Config) (asked evidence.Asked, problems []error) {
	t, problems := c.times()
	asked = evidence.Asked{Name: c.Name, Terms: evidence.Terms{Fresh: t.fresh, Stale: t.stale}, Timeout: t.timeout}
	switch c.Type {
	case "http":
		s, wrong := web.New(web.Options{URL: c.URL, Insecure: c.Insecure, CAFile: c.CAFile, TokenFile: c.TokenFile, Timeout: t.timeout})
		if len(wrong) > 0 {
			return asked, append(problems, wrong...)
		}
		asked.Locator, asked.Source = s.Locator(), s
	default:
		problems = append(problems, fmt.Errorf("type: want http, not %.40q", c.Type))
	}
	return asked, problems
}

// Close ends the connections of sources. What is being fetched fails.
func Close(all []evidence.Asked) {
	for _, a := range all {
		if c, ok := a.Source.(io.Closer); ok {
			c.Close()
		}
	}
}
