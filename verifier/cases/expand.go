package cases

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	shortDigest = regexp.MustCompile(`\b(sha256[:-])([0-9a-f]{2})\.\.`)
	keyName     = regexp.MustCompile(`\$[a-z][-a-z]*`)
)

// expandDigests writes out the digests that a case names by one byte.
func expandDigests(text string) string {
	return shortDigest.ReplaceAllStringFunc(text, func(short string) string {
		m := shortDigest.FindStringSubmatch(short)
		return m[1] + strings.Repeat(m[2], 32)
	})
}

// expandKeys puts public keys in place of the names of keys.
func expandKeys(dir, text string) (string, error) {
	var errs []error
	text = keyName.ReplaceAllStringFunc(text, func(name string) string {
		public, err := publicKey(dir, name[1:])
		if err != nil {
			errs = append(errs, fmt.Errorf("key %s: %w", name, err))
		}
		return public
	})
	return text, errors.Join(errs...)
}

// publicKey is a public key as a manifest writes it: PEM as a string of JSON, or base64 of
// an OpenPGP key in armor.
func publicKey(dir, name string) (string, error) {
	armored, err := os.ReadFile(filepath.Join(dir, "keys", name+".asc"))
	if err == nil {
		return base64.StdEncoding.EncodeToString(armored), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	private, err := privateKey(dir, name)
	if err != nil {
		return "", err
	}
	public, err := publicPEM(private)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(string(public))
	return string(text), err
}
