package image

import (
	"errors"
	"fmt"
	"strings"
)

const (
	defaultHost = "docker.io"
	legacyHost  = "index.docker.io" // another name of defaultHost in old files
	officialDir = "library/"        // where docker.io keeps images without a namespace
	defaultTag  = "latest"
)

// ErrID is returned, wrapped, where a name is wanted and an image id is written.
var ErrID = errors.New("this is an image id, not a name")

// Parse reads an image name as a pod or a user writes it and normalises it, by the grammar
// of the distribution project's reference package and its rules for docker.io: nginx
// becomes docker.io/library/nginx:latest. "latest" is filled in only when neither tag nor
// digest is written; repo:tag@digest keeps both.
//
// It is stricter in two things. An image id is never a name (ErrID, see IsID). And upper
// case in a host is an error as it is in a path: hosts are one in any case, policies
// compare bytes, and a name that means the same must not look different to them.
func Parse(s string) (Reference, error) {
	if len(s) > MaxReferenceBytes {
		return Reference{}, fmt.Errorf("image reference of %d bytes: at most %d are read", len(s), MaxReferenceBytes)
	}
	ref, err := parse(s)
	if err == nil && len(ref.String()) > MaxReferenceBytes {
		err = fmt.Errorf("longer than %d bytes in its normal form", MaxReferenceBytes)
	}
	if err != nil {
		return Reference{}, fmt.Errorf("image reference %q: %w", s, err)
	}
	return ref, nil
}

func parse(s string) (Reference, error) {
	var ref Reference
	name, digest, hasDigest := strings.Cut(s, "@")
	if IsID(name) {
		return ref, ErrID
	}
	if hasDigest {
		d, err := ParseDigest(digest)
		if err != nil {
			return ref, err
		}
		ref.Digest = d
	}
	// A colon before the last slash belongs to the host's port.
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		ref.Tag = name[colon+1:]
		name = name[:colon]
		if !validTag(ref.Tag) {
			return ref, fmt.Errorf("invalid tag %q", ref.Tag)
		}
	} else if !hasDigest {
		ref.Tag = defaultTag
	}
	repository, err := normalise(name)
	ref.Repository = repository
	return ref, err
}

// ParseIdentity reads repository@digest, without a tag. A leading https:// or http:// is
// dropped: Grafeas writes resource URIs so.
func ParseIdentity(s string) (Identity, error) {
	written := s
	for _, scheme := range []string{"https://", "http://"} {
		if rest, found := strings.CutPrefix(s, scheme); found {
			s = rest
			break
		}
	}
	ref, err := Parse(s)
	if err != nil {
		return Identity{}, err
	}
	identity, ok := ref.Identity()
	if !ok || ref.Tag != "" {
		return Identity{}, fmt.Errorf("image identity %q: want repository@digest, without a tag", written)
	}
	return identity, nil
}

// Identity is what the reference names beyond doubt; false without a digest.
func (r Reference) Identity() (Identity, bool) {
	if r.Digest == "" {
		return Identity{}, false
	}
	return Identity{Repository: r.Repository, Digest: r.Digest}, true
}

// IsID reports whether s is written as an image id: sha256: or sha512: and hex of any
// length up to the digest's, since runtimes look abbreviated ids up too, or bare hex of 12,
// 64 or 128 digits. Runtimes accept an id as the image of a container, and common parsers
// make a name of it, docker.io/library/sha256:..., which nobody meant.
func IsID(s string) bool {
	algorithm, encoded, prefixed := strings.Cut(s, ":")
	if !prefixed {
		return isHex(s) && (len(s) == 12 || len(s) == 64 || len(s) == 128)
	}
	switch algorithm {
	case "sha256":
		return isHex(encoded) && len(encoded) <= 64
	case "sha512":
		return isHex(encoded) && len(encoded) <= 128
	}
	return false
}

// normalise checks a name without tag and digest, and fills in what docker.io leaves out.
func normalise(name string) (string, error) {
	if strings.ContainsFunc(name, func(r rune) bool { return r >= 'A' && r <= 'Z' }) {
		return "", errors.New("the repository must be in lower case, its host too")
	}
	host, path, found := strings.Cut(name, "/")
	if !found || !looksLikeHost(host) {
		host, path = defaultHost, name
	}
	if host == legacyHost {
		host = defaultHost
	}
	if host == defaultHost && !strings.Contains(path, "/") {
		path = officialDir + path
	}
	if !validHost(host) {
		return "", fmt.Errorf("invalid host %q", host)
	}
	if len(path) > MaxPathBytes {
		return "", fmt.Errorf("repository path of %d bytes: at most %d are read", len(path), MaxPathBytes)
	}
	for component := range strings.SplitSeq(path, "/") {
		if !validComponent(component) {
			return "", fmt.Errorf("invalid repository path component %q", component)
		}
	}
	return host + "/" + path, nil
}

// looksLikeHost tells the host from a first path component: docker.io/team/app may be
// written team/app, so only a dot, a colon or localhost makes a host.
func looksLikeHost(component string) bool {
	return component == "localhost" || strings.ContainsAny(component, ".:")
}
