package main

import (
	"os"

	"github.com/horkos/horkos/crds"
)

// strangers are the objects in files and folders that are passed over, and whose group or
// kind looks like ours. Standard input is not read again.
func strangers(paths []string) []crds.Object {
	var found []crds.Object
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			files, _ = filesOf(path) // loading tells of an error
		}
		for _, file := range files {
			if data, ok := readManifests(file); ok {
				found = append(found, crds.Strangers(data, file)...)
			}
		}
	}
	return found
}

// readManifests reads a file again that was read as manifests, unless it is no plain file or too large.
func readManifests(file string) ([]byte, bool) {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || info.Size() > crds.MaxBytes {
		return nil, false
	}
	data, err := os.ReadFile(file)
	return data, err == nil
}
