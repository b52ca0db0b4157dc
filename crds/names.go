package crds

import "strings"

// checkNames holds the name of an object to a DNS-1123 subdomain, and its namespace, or
// the name of a Namespace, to a DNS-1123 label, as the API server does.
func checkNames(o *Object) []Problem {
	var problems []Problem
	if !isSubdomain(o.Name) || (o.Kind == KindNamespace && !isLabel(o.Name)) {
		problems = append(problems, Problem{"metadata.name", "not a name that Kubernetes allows"})
	}
	if o.Namespace != "" && !isLabel(o.Namespace) {
		problems = append(problems, Problem{"metadata.namespace", "not a name that Kubernetes allows"})
	}
	return problems
}

// isSubdomain: labels joined by dots, at most 253 bytes. The parts of a subdomain may be
// longer than 63 bytes, as the API server allows.
func isSubdomain(name string) bool {
	if len(name) > 253 {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if !isDashed(part) {
			return false
		}
	}
	return true
}

// isLabel: at most 63 bytes and no dot.
func isLabel(name string) bool { return len(name) <= 63 && isDashed(name) }

// isDashed: lower case letters, digits and inner dashes.
func isDashed(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
