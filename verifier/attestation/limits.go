package attestation

// Limits of what is read; what is above one is an error, never cut.
const (
	// MaxPayloadBytes bounds the payload of an envelope.
	MaxPayloadBytes = 64 << 10
	// MaxKeyBytes bounds a key in PEM.
	MaxKeyBytes = 16 << 10

	// maxDetailBytes bounds Failure.Detail, which may quote a stranger's envelope.
	maxDetailBytes = 200
)
