package webhook

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// Keys of the Secret's data. Others in it are left alone.
const (
	keyBundle     = "ca.crt" // what clients are to believe; the authority that signs is the first
	keySigner     = "ca.key"
	keyServing    = "tls.crt"
	keyServingKey = "tls.key"
)

// material is what the Secret holds, as far as it can be used.
type material struct {
	bundle  []*x509.Certificate // authorities that clients are to believe, the signer's first
	signer  *pair               // nil: none
	serving *pair               // nil: none
}

// decodeMaterial reads the data of the Secret. It gives what is sound, and says what is not:
// what is broken in one place does not take what is sound in another with it.
func decodeMaterial(data map[string][]byte) (m material, faults []string) {
	fault := func(key string, err error) { faults = append(faults, fmt.Sprintf("%s: %v", key, err)) }
	bundle, err := decodeCertificates(data[keyBundle])
	if err == nil && slices.ContainsFunc(bundle, func(c *x509.Certificate) bool { return !c.IsCA }) {
		err = errors.New("a certificate of no authority")
	}
	switch {
	case err != nil:
		fault(keyBundle, err)
	case len(bundle) == 0:
		fault(keyBundle, errors.New("empty"))
	default:
		m.bundle = bundle
		if key, err := decodeKey(data[keySigner], bundle[0]); err != nil {
			fault(keySigner, err)
		} else {
			m.signer = &pair{bundle[0], key}
		}
	}
	serving, err := decodeCertificates(data[keyServing])
	if err == nil && len(serving) != 1 {
		err = fmt.Errorf("%d certificates, want one", len(serving))
	}
	if err != nil {
		fault(keyServing, err)
	} else if key, err := decodeKey(data[keyServingKey], serving[0]); err != nil {
		fault(keyServingKey, err)
	} else {
		m.serving = &pair{serving[0], key}
	}
	return m, faults
}

// encode gives the data of the Secret.
func (m material) encode() (map[string][]byte, error) {
	_, signer, err := m.signer.encode()
	if err != nil {
		return nil, err
	}
	serving, key, err := m.serving.encode()
	if err != nil {
		return nil, err
	}
	return map[string][]byte{keyBundle: encodeCertificates(m.bundle...), keySigner: signer, keyServing: serving, keyServingKey: key}, nil
}

func (m material) believes(c *x509.Certificate) bool {
	return slices.ContainsFunc(m.bundle, c.Equal)
}
