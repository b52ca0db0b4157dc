// Package version tells which build of Horkos runs.
package version

// version is set by the linker: -X github.com/horkos/horkos/version.version=v1.2.3.
var version = "devel"

// String is the version, devel when none was stamped.
func String() string { return version }
