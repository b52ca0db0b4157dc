package policy

import (
	"fmt"
	"regexp"
	"slices"
	"sort"

	"github.com/horkos/horkos/crds/horkos"
)

// nameLabel is the label that every namespace has, with its name.
const nameLabel = "kubernetes.io/metadata.name"

// What labels can be, as the API server holds them to; what can match none would select
// less than was meant.
var (
	labelKey   = regexp.MustCompile(`\A(?:[a-z0-9][-a-z0-9.]{0,252}/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\z`)
	labelValue = regexp.MustCompile(`\A(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?\z`)
)

// maxSelectorValues bounds what a selector may list.
const maxSelectorValues = 1024

// selector is a compiled LabelSelector. Its zero value selects every namespace.
type selector struct {
	conditions []horkos.LabelSelectorRequirement
}

// compileSelector reads a LabelSelector as metav1 does: all conditions must hold.
func compileSelector(s *horkos.LabelSelector) (selector, error) {
	if s == nil {
		return selector{}, nil
	}
	var out selector
	keys := make([]string, 0, len(s.MatchLabels))
	for k := range s.MatchLabels {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		out.conditions = append(out.conditions, horkos.LabelSelectorRequirement{Key: k, Operator: "In", Values: []string{s.MatchLabels[k]}})
	}
	out.conditions = append(out.conditions, s.MatchExpressions...)
	values := 0
	for _, c := range out.conditions {
		values += len(c.Values)
		switch c.Operator {
		case "In", "NotIn":
			if len(c.Values) == 0 {
				return selector{}, fmt.Errorf("operator %s needs values", c.Operator)
			}
		case "Exists", "DoesNotExist":
			if len(c.Values) > 0 {
				return selector{}, fmt.Errorf("operator %s takes no values", c.Operator)
			}
		default:
			return selector{}, fmt.Errorf("operator %q: want In, NotIn, Exists or DoesNotExist", c.Operator)
		}
		if !labelKey.MatchString(c.Key) {
			return selector{}, fmt.Errorf("%.80q is not the key of a label", c.Key)
		}
		for _, value := range c.Values {
			if !labelValue.MatchString(value) {
				return selector{}, fmt.Errorf("%.80q is not the value of a label", value)
			}
		}
	}
	if values > maxSelectorValues {
		return selector{}, fmt.Errorf("%d values, at most %d are allowed", values, maxSelectorValues)
	}
	return out, nil
}

// labels are what is known of a namespace.
type labels struct {
	name string
	// known holds all labels of the namespace; nil when only its name is known.
	known map[string]string
}

// matches tells whether a namespace may be selected. Where its labels are not known, a
// condition on them counts as met: what enforces errs on the side of selecting.
func (s selector) matches(ns labels) bool {
	for _, c := range s.conditions {
		value, has := ns.known[c.Key]
		if c.Key == nameLabel {
			value, has = ns.name, true
		} else if ns.known == nil {
			continue
		}
		var met bool
		switch c.Operator {
		case "In":
			met = has && slices.Contains(c.Values, value)
		case "NotIn":
			met = !has || !slices.Contains(c.Values, value)
		case "Exists":
			met = has
		case "DoesNotExist":
			met = !has
		}
		if !met {
			return false
		}
	}
	return true
}

// empty tells whether no namespace can be selected, whatever its labels.
func (s selector) empty() bool {
	type demand struct {
		there, gone bool
		lists       int            // how many conditions list values
		listed      map[string]int // by value, in how many of them
		not         map[string]bool
	}
	demands := map[string]*demand{nameLabel: {there: true}}
	for _, c := range s.conditions {
		d := demands[c.Key]
		if d == nil {
			d = &demand{}
			demands[c.Key] = d
		}
		switch c.Operator {
		case "Exists":
			d.there = true
		case "DoesNotExist":
			d.gone = true
		case "NotIn":
			if d.not == nil {
				d.not = make(map[string]bool)
			}
			for _, v := range c.Values {
				d.not[v] = true
			}
		case "In":
			if d.there, d.lists = true, d.lists+1; d.listed == nil {
				d.listed = make(map[string]int)
			}
			for _, v := range c.Values {
				if d.listed[v] == d.lists-1 { // in all before
					d.listed[v]++
				}
			}
		}
	}
	for _, d := range demands {
		possible := d.lists == 0
		for v, n := range d.listed {
			possible = possible || (n == d.lists && !d.not[v])
		}
		if !possible || (d.there && d.gone) {
			return true
		}
	}
	return false
}

// names are the namespaces that the selector speaks of by name.
func (s selector) names() []string {
	var names []string
	for _, c := range s.conditions {
		if c.Key == nameLabel {
			names = append(names, c.Values...)
		}
	}
	return names
}
