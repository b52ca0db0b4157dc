package node

import (
	"io"
	"os"

	"github.com/horkos/horkos/state"
)

// openOwned opens a regular file that belongs to root and that nobody else may write.
func openOwned(path string) (*os.File, error) {
	f, _, err := state.OpenOwned(path)
	return f, err
}

func readAtMost(r io.Reader, limit int) ([]byte, error) { return state.ReadAtMost(r, limit) }
