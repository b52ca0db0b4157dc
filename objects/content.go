package objects

import (
	"fmt"
	"time"

	"github.com/horkos/horkos/crds"
)

// content is what one file holds: objects, or a fault.
type content struct {
	stamp    stamp
	objects  []crds.Object
	bytes    int    // of the file, or of its objects as JSON where that is more
	fault    string // why there are no objects; empty when the file could be read
	notOwned bool   // the fault is state.ErrNotOwned
	read     time.Time
	since    time.Time // when the file was first seen as it is
	whole    bool      // it is not being written in place: what it lost, it was meant to lose
}

// decode makes the content of a file of its bytes, if they fit in what is left of the limits.
func decode(data []byte, source string, left budget) content {
	objects, err := crds.Decode(data, source)
	if err != nil {
		return content{fault: err.Error()}
	}
	c := content{objects: objects}
	for i := range objects {
		c.bytes += len(objects[i].Raw)
	}
	c.bytes = max(c.bytes, len(data))
	if c.bytes > left.bytes || len(objects) > left.objects {
		return content{fault: fmt.Sprintf("with it the folder would hold more than %d bytes or %d objects", MaxFolderBytes, MaxFolderObjects)}
	}
	return c
}

// budget is what is left of the limits of a folder.
type budget struct{ bytes, objects int }

func newBudget() budget { return budget{MaxFolderBytes, MaxFolderObjects} }

// plus is the budget with what a file held, or, with -1, now holds.
func (b budget) plus(sign int, c content) budget {
	return budget{b.bytes + sign*c.bytes, b.objects + sign*len(c.objects)}
}
