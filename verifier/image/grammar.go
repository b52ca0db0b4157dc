package image

import "strings"

// The terminals of the reference grammar (distribution project, package reference, and OCI
// distribution specification, "Pulling manifests"), for lower-case input, each in one pass.

// validHost accepts labels joined by dots, or an IPv6 address in brackets, and a port.
func validHost(s string) bool {
	if address, found := strings.CutPrefix(s, "["); found {
		address, rest, closed := strings.Cut(address, "]")
		return closed && isHex(strings.ReplaceAll(address, ":", "0")) && (rest == "" || rest[0] == ':' && isNumber(rest[1:]))
	}
	host, port, hasPort := strings.Cut(s, ":")
	if hasPort && !isNumber(port) {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

// validLabel accepts letters and digits, with dashes inside.
func validLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// validComponent accepts runs of letters and digits with one separator between two of
// them: a dot, one or two underscores, or any number of dashes.
func validComponent(s string) bool {
	for {
		run := 0
		for run < len(s) && isAlphanumeric(s[run]) {
			run++
		}
		if run == 0 || run == len(s) {
			return run > 0
		}
		s = s[run:]
		n := separator(s)
		if n == 0 {
			return false
		}
		s = s[n:]
	}
}

// separator is the length of the separator that s, which is not empty, begins with.
func separator(s string) int {
	switch {
	case strings.HasPrefix(s, "__"):
		return 2
	case s[0] == '_', s[0] == '.':
		return 1
	}
	return len(s) - len(strings.TrimLeft(s, "-"))
}

// validTag accepts word characters, and dots and dashes but in the first place.
func validTag(s string) bool {
	if s == "" || len(s) > MaxTagBytes || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isAlphanumeric(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}
