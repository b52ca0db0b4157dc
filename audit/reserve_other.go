//go:build !linux

package audit

import "errors"

const openNoFollow = 0

func reserveSpace(file, int64) error { return errors.ErrUnsupported }
