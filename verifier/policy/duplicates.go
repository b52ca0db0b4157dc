package policy

import (
	"slices"
	"strings"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/crds/horkos"
)

// withDuplicates gives the objects of an origin, those malformed that share kind, namespace
// and name, since nobody can tell which one is meant. ImageAttestations may be many: their
// users merge them. The objects given are not changed.
func withDuplicates(objects []crds.Object) []crds.Object {
	type key struct{ group, kind, namespace, name string }
	places := make(map[key][]int, len(objects))
	for i := range objects {
		o := &objects[i]
		if o.Kind == horkos.KindImageAttestation {
			continue
		}
		group, _, _ := strings.Cut(o.APIVersion, "/")
		k := key{group, o.Kind, o.Namespace, o.Name}
		places[k] = append(places[k], i)
	}
	var marked []crds.Object
	for _, same := range places {
		if len(same) < 2 {
			continue
		}
		if marked == nil {
			marked = slices.Clone(objects)
		}
		for n, i := range same {
			other := same[0]
			if n == 0 {
				other = same[1]
			}
			o := &marked[i]
			o.Problems = append(slices.Clip(o.Problems), crds.Problem{Message: also(objects[other].Source)})
		}
	}
	if marked == nil {
		return objects
	}
	return marked
}

func also(source string) string {
	if source == "" {
		return "there is another of this name"
	}
	return "also in " + source
}
