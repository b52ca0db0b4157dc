package containerd

import (
	"slices"

	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/image"
)

// withChain returns all known configs that have the content of a chain ID.
func (ix *Index) withChain(chain image.Digest) []bound {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	var found []bound
	for _, run := range ix.catalog.chains[chain] {
		found = append(found, bound{config: run.config, points: run.records[0].target.content})
	}
	return found
}

// offering returns the content of a known record under which a config is usable, or nil.
func (ix *Index) offering(config image.Digest) *content {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if run := ix.catalog.configs[config]; run != nil && len(run.records) > 0 {
		return run.records[0].target.content
	}
	return nil
}

// describe fills in all that speaks for the content that was found. named is the record
// that the pod asked for, nil if it has no name.
func (ix *Index) describe(img *verifier.Image, found bound, named *content) {
	img.Config = found.config
	img.Digests = []image.Digest{found.config}
	var records []*record
	ix.mu.Lock()
	if run := ix.catalog.configs[found.config]; run != nil {
		img.Digests = run.all()
		records = slices.Clone(run.records)
	}
	ix.mu.Unlock()
	// What was asked of containerd directly is not in the index yet.
	for _, c := range []*content{found.points, found.reported, named} {
		if c == nil {
			continue
		}
		if w := c.to(found.config); w != nil {
			img.Digests = appendNew(img.Digests, w.digests)
		}
	}
	if named != nil {
		img.Candidates = append(img.Candidates, verifier.Candidate{
			Repository: img.Name.Repository, Digests: slices.Clone(named.to(found.config).offered)})
	}
	img.Candidates = candidates(img.Candidates, records, found.config, ix.prefer)
}

// candidates adds what the records of a config offer until there are verifier.MaxCandidates:
// those that are preferred first, so that no number of twins crowds them out, each group in
// the order of the records. nil prefers none.
func candidates(to []verifier.Candidate, records []*record, config image.Digest, prefer func(verifier.Candidate) bool) []verifier.Candidate {
	add := func(wanted func(verifier.Candidate) bool) {
		for i, rec := range records {
			if len(to) >= verifier.MaxCandidates {
				return
			}
			if rec.named == 0 || i > 0 && rec.repository() == records[i-1].repository() && rec.target == records[i-1].target {
				continue // no name, or another tag of the one before
			}
			c := verifier.Candidate{Repository: rec.repository(), Digests: rec.target.to(config).offered}
			same := func(o verifier.Candidate) bool {
				return o.Repository == c.Repository && slices.Equal(o.Digests, c.Digests)
			}
			if wanted(c) && !slices.ContainsFunc(to, same) {
				c.Digests = slices.Clone(c.Digests)
				to = append(to, c)
			}
		}
	}
	if prefer != nil {
		add(prefer)
	}
	add(func(verifier.Candidate) bool { return true })
	return to
}
