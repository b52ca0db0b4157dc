package policy

import "strings"

// scopes finds, in a list of policies, those whose scope a name could be in, by what the
// names that they are about begin with: a registry, or a registry and the next segment. It
// only saves looking at the others: whether a policy applies is still for it to say.
type scopes struct {
	open []int            // places of policies that any name could be in the scope of
	by   map[string][]int // of the others
}

// newScopes is nil where no policy has a scope.
func newScopes(policies []*Policy) *scopes {
	s := &scopes{by: make(map[string][]int)}
	for i, p := range policies {
		begins, open := p.begins()
		if open {
			s.open = append(s.open, i)
			continue
		}
		for b := range begins {
			s.by[b] = append(s.by[b], i)
		}
	}
	if len(s.open) == len(policies) {
		return nil
	}
	return s
}

// begins is what the names that a policy is about begin with; open means anything.
func (p *Policy) begins() (begins map[string]bool, open bool) {
	if p.scope == nil || p.Malformed != "" || len(p.scope.exprs) > 0 {
		return nil, true
	}
	begins = make(map[string]bool)
	add := func(text string) {
		host, segment := beginning(text)
		switch {
		case host == "":
			open = true
		case segment == "":
			begins[host] = true
		default:
			begins[segment] = true
		}
	}
	for name := range p.scope.exact {
		add(string(name))
	}
	for _, same := range p.scope.prefixes {
		for i := range same {
			add(same[i].text)
		}
	}
	for i := range p.scope.trees {
		add(p.scope.trees[i].text)
	}
	return begins, open
}

// beginning is a name up to its first slash, and up to its second; empty where there is none.
func beginning(name string) (host, segment string) {
	i := strings.IndexByte(name, '/') + 1
	if i == 0 {
		return "", ""
	}
	if k := strings.IndexByte(name[i:], '/') + 1; k > 0 {
		segment = name[:i+k]
	}
	return name[:i], segment
}

// About are the policies of the layer that are about images of a name, in their order. The
// list must not be changed.
func (l *Layer) About(name Name) []*Policy {
	if l.scopes == nil || name == "" {
		return l.Policies
	}
	host, segment := beginning(string(name))
	lists := [...][]int{l.scopes.open, l.scopes.by[host], l.scopes.by[segment]}
	about := make([]*Policy, 0, len(lists[0])+len(lists[1])+len(lists[2]))
	for {
		next := -1
		for _, list := range lists {
			if len(list) > 0 && (next < 0 || list[0] < next) {
				next = list[0]
			}
		}
		if next < 0 {
			return about
		}
		for k, list := range lists { // a policy may be in two
			if len(list) > 0 && list[0] == next {
				lists[k] = list[1:]
			}
		}
		if p := l.Policies[next]; p.Applies(name) {
			about = append(about, p)
		}
	}
}
