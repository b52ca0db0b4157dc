package attestation

import (
	"fmt"

	"github.com/horkos/horkos/verifier/image"
)

// UnverifiedIdentity reads which image a payload speaks of, before anybody looked at its signature: to
// set aside what could never count, and for nothing else. An error means that it will not
// be a statement under any signature.
func UnverifiedIdentity(payload []byte) (image.Identity, error) {
	if len(payload) > MaxPayloadBytes {
		return image.Identity{}, fmt.Errorf("payload of %d bytes: at most %d are read", len(payload), MaxPayloadBytes)
	}
	statement, err := decodePayload(payload)
	return statement.Identity, err
}
