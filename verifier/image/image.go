// Package image names images: the one parser of references, their normal form, and
// the way from a digest over index and manifest to the config that runs.
package image

// Digest is algorithm:hex, sha256 or sha512, lower case. The zero value is none.
type Digest string

// Identity is what an attestation speaks of: a repository in its normal form
// (docker.io/library/nginx) and a digest. A tag is never part of it.
type Identity struct {
	Repository string
	Digest     Digest
}

func (i Identity) String() string { return i.Repository + "@" + string(i.Digest) }

// Reference is a parsed and normalised image name. The zero value is no name.
type Reference struct {
	Repository string // domain[:port]/path, docker.io/library/ filled in
	Tag        string // empty, or as written; "latest" is filled in when neither tag nor digest is written
	Digest     Digest // empty, or as written
}

// String writes the normal form: repository[:tag][@digest].
func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}
