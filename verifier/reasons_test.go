package verifier_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/horkos/horkos/verifier"
)

func TestTheListOfReasonsIsWhole(t *testing.T) {
	source, err := os.ReadFile("reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []verifier.Reason
	for _, m := range regexp.MustCompile(`Reason = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, verifier.Reason(m[1]))
	}
	if got := verifier.Reasons(); len(want) < 20 || !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
