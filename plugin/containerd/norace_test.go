//go:build !race

package containerd_test

const raceDetector = false
