package attestation

// Limits of what is read; what is above one is an error, never cut.
const (
	// MaxPayloadBytes bounds the payload of an envelope.
	MaxPayloadBytes = 64 << 10
	// MaxKeyBytes bounds a key in PEM.
	MaxKeyBytes = 16 << 10
	// MaxPGPKeyBytes bounds an OpenPGP key as it is written.
	MaxPGPKeyBytes = 64 << 10
	// MaxPGPMessageBytes bounds an OpenPGP message, as it is written and decompressed.
	MaxPGPMessageBytes = 256 << 10
	// MaxPGPSignatures bounds the signatures of an OpenPGP message.
	MaxPGPSignatures = 16
	// MaxJWTBytes bounds a JSON Web Signature in compact form.
	MaxJWTBytes = 64 << 10

	// maxPGPSubkeys bounds the subkeys of an OpenPGP key, maxPGPUserIDs its user ids, and
	// maxPGPPackets its packets.
	maxPGPSubkeys = 32
	maxPGPUserIDs = 16
	maxPGPPackets = 1024
	// maxPGPEffort bounds what reading an OpenPGP key may cost, as effort has it.
	maxPGPEffort = 96
	// The bounds of an RSA modulus in an OpenPGP key, in bits: below it is weak, above it
	// slow, and no algorithm has a name. The exponent is the usual one or close to it: the
	// time to verify grows with its length.
	minRSABits     = 2048
	maxRSABits     = 4096
	maxRSAExponent = 1<<17 - 1
	// maxDetailBytes bounds Failure.Detail, which may quote a stranger's envelope.
	maxDetailBytes = 200
)
