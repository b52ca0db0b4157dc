package objects

import (
	"time"

	"github.com/horkos/horkos/crds"
)

// Limits of a folder.
const (
	// MaxFolderBytes bounds what all files of a folder hold together, and so each of them.
	MaxFolderBytes = crds.MaxBytes
	// MaxFolderObjects bounds the objects of all files of a folder.
	MaxFolderObjects = crds.MaxObjects
	// MaxFolderFiles bounds the files of a folder that are read.
	MaxFolderFiles = 20_000

	// maxKeptBytes bounds the kept copy: the objects of a folder, and where each was read.
	maxKeptBytes = 2 * MaxFolderBytes
)

// Times of following a folder. A change is in force within a second of the last write: it is
// seen after one settle, and believed after a second one. What is lost in place is believed later.
const (
	// settle is how long size and time of a file must stand still before it is read.
	settle = 100 * time.Millisecond
	// lossSettle is how long a file must stand still that lost something without having
	// been replaced as a whole, before that is believed (see whole). Writers pause that long
	// only when they have failed.
	lossSettle = 10 * time.Second
	// rescan is how often the folder is looked at when nothing is reported: by file systems
	// that report nothing, of mounts that come and go, of targets of links outside the folder.
	rescan = 10 * time.Second
	// hurry is how often it is looked at while nothing can be reported, and how often one
	// looks whether what makes the set stale is over.
	hurry = 250 * time.Millisecond
	// startLooks is how often a folder in motion is looked at before the start goes on.
	startLooks = 10
)
