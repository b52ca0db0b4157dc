package breakglass

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"
	strictjson "sigs.k8s.io/json"

	"github.com/horkos/horkos/verifier/image"
)

// Limits of a token.
const (
	MaxImages = 16
	MaxReason = 256       // bytes
	MaxFor    = time.Hour // from minting

	// KeySize is that of the key, in bytes.
	KeySize = sha256.Size

	maxToken = 16 << 10 // bytes of the text
	// maxSkew is how far the clock of who mints may be ahead.
	maxSkew = 5 * time.Minute
)

// prefix begins every token, and says of which version it is; mark is in those of any.
const (
	mark   = "horkos-breakglass-v"
	prefix = mark + "1."
)

// encoding has one text for the same bytes.
var encoding = base64.RawURLEncoding.Strict()

var (
	errKey       = fmt.Errorf("the key of tokens is not of %d bytes", KeySize)
	errMalformed = errors.New("the token is malformed")
	errSignature = errors.New("the token is not of this cluster's key")
)

// Token lets images into one namespace, until it expires. Whoever has its text may use it
// any number of times.
type Token struct {
	Namespace string   `json:"namespace"`
	Images    []string `json:"images"` // names as pods write them, or digests
	Reason    string   `json:"reason"`
	Minted    int64    `json:"minted"`  // Unix seconds
	Expires   int64    `json:"expires"` // Unix seconds
}

// Mint gives the text of a token, under a key of KeySize bytes.
func Mint(key []byte, t Token) (string, error) {
	if len(key) != KeySize {
		return "", errKey
	}
	if err := t.check(); err != nil {
		return "", err
	}
	payload, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("write the token: %w", err)
	}
	signed := prefix + encoding.EncodeToString(payload)
	text := signed + "." + encoding.EncodeToString(sign(key, signed))
	if len(text) > maxToken {
		return "", fmt.Errorf("the token would be over %d bytes: name fewer images", maxToken)
	}
	return text, nil
}

// Verify reads the text of a token that was minted under the key and is in force now. The
// error repeats nothing of the text.
func Verify(key []byte, text string, now time.Time) (Token, error) {
	if len(key) != KeySize {
		return Token{}, errKey
	}
	if len(text) > maxToken || !strings.HasPrefix(text, prefix) {
		return Token{}, errMalformed
	}
	payloadText, macText, ok := strings.Cut(text[len(prefix):], ".")
	if !ok {
		return Token{}, errMalformed
	}
	mac, err := encoding.DecodeString(macText)
	if err != nil || len(mac) != sha256.Size || strings.ContainsAny(text, "\r\n") { // which base64 would skip
		return Token{}, errMalformed
	}
	if !hmac.Equal(mac, sign(key, prefix+payloadText)) {
		return Token{}, errSignature
	}
	t, err := read(payloadText)
	if err != nil {
		return Token{}, err
	}
	switch {
	case now.Before(time.Unix(t.Minted, 0).Add(-maxSkew)):
		return Token{}, errors.New("the token is dated ahead of now: compare the clocks")
	case !now.Before(time.Unix(t.Expires, 0)):
		return Token{}, fmt.Errorf("the token expired at %s", time.Unix(t.Expires, 0).UTC().Format(time.RFC3339))
	}
	return t, nil
}

func isToken(text string) bool { return strings.HasPrefix(text, mark) }

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// read reads a payload as Mint writes it, and no other.
func read(text string) (t Token, err error) {
	payload, err := encoding.DecodeString(text)
	if err != nil {
		return Token{}, errMalformed
	}
	strict, err := strictjson.UnmarshalStrict(payload, &t)
	if err != nil || len(strict) > 0 {
		return Token{}, errMalformed
	}
	if again, err := json.Marshal(t); err != nil || !bytes.Equal(again, payload) {
		return Token{}, errMalformed
	}
	return t, t.check()
}

// check holds a token to its limits.
func (t *Token) check() error {
	if len(validation.IsDNS1123Label(t.Namespace)) > 0 {
		return fmt.Errorf("%.80q cannot be the name of a namespace", t.Namespace)
	}
	if n := len(t.Images); n == 0 || n > MaxImages {
		return fmt.Errorf("%d images: want 1 to %d", n, MaxImages)
	}
	for i, name := range t.Images {
		if !isDigest(name) {
			if _, err := image.Parse(name); err != nil {
				return fmt.Errorf("%.100q is neither an image as pods name it nor a digest", name)
			}
		}
		if slices.Contains(t.Images[:i], name) {
			return fmt.Errorf("%.100q is there twice", name)
		}
	}
	switch length := t.Expires - t.Minted; {
	case t.Minted <= 0 || length <= 0:
		return errors.New("a token has to be for some time")
	case length > int64(MaxFor/time.Second):
		return fmt.Errorf("a token is for %s at most", MaxFor)
	}
	return checkReason(t.Reason, MaxReason)
}

func checkReason(reason string, most int) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return errors.New("there is no reason")
	case len(reason) > most:
		return fmt.Errorf("the reason is over %d bytes", most)
	case !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the reason has characters that cannot be printed")
	case strings.Contains(reason, mark):
		return errors.New("a token is in the reason: records would repeat it")
	}
	return nil
}

func isDigest(name string) bool {
	_, err := image.ParseDigest(name)
	return err == nil
}

// covers tells whether an image is among the token's: by the name as written, letter by
// letter, or by the digest that the name ends with.
func (t *Token) covers(written string) bool {
	if slices.Contains(t.Images, written) {
		return true
	}
	ref, err := image.Parse(written)
	return err == nil && ref.Digest != "" && slices.Contains(t.Images, string(ref.Digest))
}
