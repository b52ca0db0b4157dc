package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier/image"
)

// jwtAlgorithms are the names in a header, and of a key's algorithm.
func jwtAlgorithms() map[string]string {
	return map[string]string{
		"RS256": "rsa-sign-pkcs1-2048-sha256", "RS512": "rsa-sign-pkcs1-4096-sha512",
		"PS256": "rsa-pss-2048-sha256", "PS512": "rsa-pss-4096-sha512",
		"ES256": "ecdsa-p256-sha256", "ES384": "ecdsa-p384-sha384", "ES512": "ecdsa-p521-sha512",
		"EdDSA": "ed25519",
	}
}

func jwtKey(t testing.TB, alg string) *Key {
	t.Helper()
	key, err := ParsePKIXKey("release", testdata(t, "jwt/"+alg+".pem"), jwtAlgorithms()[alg])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func token(compact []byte) *Envelope {
	return &Envelope{Format: JWT, KeyID: "release", Signature: compact}
}

// saidByJWT is what testdata/jwt/claims.json says.
func saidByJWT() Statement {
	return Statement{
		Identity:  image.Identity{Repository: "registry.example.com/team/app", Digest: digest},
		Timestamp: time.Unix(1767225600, 0).UTC(),
		NotBefore: time.Unix(1767225601, 0).UTC(),
		Expires:   time.Unix(1893456000, 0).UTC(),
	}
}

func TestTheJWTsOpensslMadeVerify(t *testing.T) {
	for alg := range jwtAlgorithms() {
		t.Run(alg, func(t *testing.T) {
			compact := testdata(t, "jwt/"+alg+".jwt")
			if got := Verify(jwtKey(t, alg), token(compact)); got.Failure != nil || *got.Statement != saidByJWT() {
				t.Errorf("got %+v, %v", got.Statement, got.Failure)
			}
			if id, err := JWTKeyID(compact); id != "release" || err != nil {
				t.Errorf("key id %q, %v", id, err)
			}
		})
	}
}

func TestAChangedJWTDoesNotVerify(t *testing.T) {
	for alg := range jwtAlgorithms() {
		t.Run(alg, func(t *testing.T) {
			key, good := jwtKey(t, alg), testdata(t, "jwt/"+alg+".jwt")
			try := func(what string, compact []byte) {
				t.Helper()
				wantFailure(t, what, Verify(key, token(compact)), BadSignature)
			}
			step := 1
			if len(good) > 1000 { // keys that take long
				step = 5
			}
			for i := 0; i < len(good); i += step {
				flipped := bytes.Clone(good)
				flipped[i] ^= 1 << (i % 8)
				try(fmt.Sprintf("a bit of byte %d flipped", i), flipped)
			}
			for n := 0; n < len(good); n += 7 {
				try(fmt.Sprintf("cut to %d bytes", n), good[:n])
			}
			try("cut by one", good[:len(good)-1])
			parts := strings.Split(string(good), ".")
			signature, err := base64.RawURLEncoding.DecodeString(parts[2])
			if err != nil {
				t.Fatal(err)
			}
			with := func(signature []byte) []byte {
				return []byte(parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(signature))
			}
			for i := 0; i < len(signature); i += step {
				flipped := bytes.Clone(signature)
				flipped[i] ^= 1 << (i % 8)
				try(fmt.Sprintf("a bit of byte %d of the signature flipped", i), with(flipped))
			}
			try("a zero behind the signature", with(append(bytes.Clone(signature), 0)))
			try("a zero before the signature", with(append([]byte{0}, signature...)))
			try("half the signature", with(signature[:len(signature)/2]))
			try("a signature of zeros", with(make([]byte, len(signature))))
			try("the signature twice", with(append(bytes.Clone(signature), signature...)))
			try("no signature", []byte(parts[0]+"."+parts[1]+"."))
			try("no third part", []byte(parts[0]+"."+parts[1]))
			try("a fourth part", append(bytes.Clone(good), ".eA"...))
			try("a newline behind", append(bytes.Clone(good), '\n'))
			try("a space before", append([]byte(" "), good...))
			try("a newline inside", []byte(parts[0]+"."+parts[1]+"."+parts[2][:8]+"\n"+parts[2][8:]))
			try("padding", append(bytes.Clone(good), "=="...))
			try("twice", append(bytes.Clone(good), good...))
			claims := strings.Replace(string(testdata(t, "jwt/claims.json")), "team/app", "evil/app", 1)
			try("other claims", []byte(parts[0]+"."+base64.RawURLEncoding.EncodeToString([]byte(claims))+"."+parts[2]))
			try("claims with a space behind", []byte(parts[0]+"."+base64.RawURLEncoding.EncodeToString(append(testdata(t, "jwt/claims.json"), ' '))+"."+parts[2]))
		})
	}
}

// The last character of base64 has bits that mean nothing: they have to be zero.
func TestAJWTHasOneSpelling(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	key, good := jwtKey(t, "ES256"), testdata(t, "jwt/ES256.jwt") // 64 bytes: 4 such bits
	last := strings.IndexByte(alphabet, good[len(good)-1])
	for i := range 64 {
		if i == last {
			continue
		}
		other := append(bytes.Clone(good[:len(good)-1]), alphabet[i])
		wantFailure(t, fmt.Sprintf("%c at the end", alphabet[i]), Verify(key, token(other)), BadSignature)
	}
}

// Who may choose the algorithm can have one chosen by which the public key is a secret.
func TestTheKeyFixesTheAlgorithm(t *testing.T) {
	for of := range jwtAlgorithms() {
		compact := testdata(t, "jwt/"+of+".jwt")
		for under := range jwtAlgorithms() {
			if of != under {
				wantFailure(t, of+" under a key for "+under, Verify(jwtKey(t, under), token(compact)), BadSignature)
			}
		}
		for name, algorithm := range jwtAlgorithms() { // the same key with another algorithm
			if other, err := ParsePKIXKey("release", testdata(t, "jwt/"+of+".pem"), algorithm); err == nil && name != of {
				wantFailure(t, of+" under the same key for "+name, Verify(other, token(compact)), BadSignature)
			}
		}
	}
	for _, name := range []string{"none", "HS256"} {
		got := Verify(jwtKey(t, "RS256"), token(testdata(t, "jwt/"+name+".jwt")))
		wantFailure(t, name, got, BadSignature)
	}
	key := jwtKey(t, "RS256")
	secret := testdata(t, "jwt/RS256.pem")
	for _, alg := range []string{"HS256", "RS256", "PS256", "none", "NONE", "None", "nOnE", "", "rs256", "RS384", "ES256", "EdDSA", "RS256 "} {
		input := encodeJWT(fmt.Sprintf(`{"alg":%q,"typ":"JWT","kid":"release"}`, alg), string(testdata(t, "jwt/claims.json")))
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		compact := []byte(input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
		wantFailure(t, "alg "+alg+", the public key as secret", Verify(key, token(compact)), BadSignature)
		wantFailure(t, "alg "+alg+", no signature", Verify(key, token([]byte(input+"."))), BadSignature)
	}
}

// TestAJWTDoesNotVerifyUnderAnotherKeyOfItsAlgorithmAndID: nothing but the signature tells.
func TestAJWTDoesNotVerifyUnderAnotherKeyOfItsAlgorithmAndID(t *testing.T) {
	for alg, name := range jwtAlgorithms() {
		i := slices.IndexFunc(algorithms(), func(a algorithm) bool { return a.name == name })
		other, err := ParsePKIXKey("release", testdata(t, keyFile(algorithms()[i])+".other.pem"), name)
		if err != nil {
			t.Fatal(err)
		}
		if other.Distinct() == jwtKey(t, alg).Distinct() {
			t.Fatalf("%s: it is the same key", alg)
		}
		got := Verify(other, token(testdata(t, "jwt/"+alg+".jwt")))
		wantFailure(t, alg, got, BadSignature)
		if want := "it does not verify under the key by " + alg; got.Failure.Detail != want {
			t.Errorf("%s: it says %q, want %q", alg, got.Failure.Detail, want)
		}
	}
}

func encodeJWT(header, claims string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
}

// signJWT makes a JWT of anything with a key of its own.
func signJWT(t testing.TB, header, claims string) (*Key, []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey("release", public, "")
	if err != nil {
		t.Fatal(err)
	}
	input := encodeJWT(header, claims)
	return key, []byte(input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(private, []byte(input))))
}

const jwtHead = `{"alg":"EdDSA","typ":"JWT","kid":"release"}`

func TestAHeaderIsStrict(t *testing.T) {
	claims := string(testdata(t, "jwt/claims.json"))
	good := []struct{ name, header string }{
		{"in another order", `{"kid":"release","typ":"JWT","alg":"EdDSA"}`},
		{"with white space", " {\n\"alg\" : \"EdDSA\",\t\"typ\":\"JWT\",\"kid\":\"release\"}\n"},
		{"with members that are not critical", `{"alg":"EdDSA","typ":"JWT","kid":"release","cty":"x","extra":{"a":[1]}}`},
	}
	for _, tt := range good {
		key, compact := signJWT(t, tt.header, claims)
		if got := Verify(key, token(compact)); got.Failure != nil {
			t.Errorf("%s: %v", tt.name, got.Failure)
		}
	}
	add := func(members string) string { return jwtHead[:len(jwtHead)-1] + "," + members + "}" }
	bad := []struct{ name, header, says string }{
		{"no JSON", "x", "invalid character"},
		{"null", "null", "typ"},
		{"a list", "[]", "cannot unmarshal"},
		{"two documents", jwtHead + jwtHead, "after top-level"},
		{"cut short", jwtHead[:len(jwtHead)-1], "unexpected end"},
		{"invalid UTF-8", add("\"a\":\"\xff\""), "UTF-8"},
		{"no typ", `{"alg":"EdDSA","kid":"release"}`, "typ"},
		{"typ in lower case", `{"alg":"EdDSA","typ":"jwt","kid":"release"}`, "typ"},
		{"typ of something else", `{"alg":"EdDSA","typ":"at+jwt","kid":"release"}`, "typ"},
		{"typ null", `{"alg":"EdDSA","typ":null,"kid":"release"}`, "typ"},
		{"typ in a list", `{"alg":"EdDSA","typ":["JWT"],"kid":"release"}`, "typ"},
		{"no alg", `{"typ":"JWT","kid":"release"}`, "without alg"},
		{"alg in another letter case", `{"ALG":"EdDSA","typ":"JWT","kid":"release"}`, "without alg"},
		{"alg in a list", `{"alg":["EdDSA"],"typ":"JWT","kid":"release"}`, "without alg"},
		{"no kid", `{"alg":"EdDSA","typ":"JWT"}`, "kid"},
		{"an empty kid", `{"alg":"EdDSA","typ":"JWT","kid":""}`, "kid"},
		{"kid a number", `{"alg":"EdDSA","typ":"JWT","kid":1}`, "kid"},
		{"another kid", `{"alg":"EdDSA","typ":"JWT","kid":"other"}`, `kid "other"`},
		{"alg twice", add(`"alg":"EdDSA"`), "duplicate"},
		{"alg twice, once escaped", add(`"\u0061lg":"none"`), "duplicate"},
		{"kid twice", add(`"kid":"release"`), "duplicate"},
		{"something unknown twice", add(`"a":1,"a":1`), "duplicate"},
		{"something inside twice", add(`"a":{"b":1,"b":1}`), "duplicate"},
		{"crit", add(`"crit":["exp"],"exp":1`), "crit"},
		{"an empty crit", add(`"crit":[]`), "crit"},
		{"crit null", add(`"crit":null`), "crit"},
		{"a payload that is not in base64", add(`"b64":false`), "b64"},
		{"a key", add(`"jwk":{"kty":"OKP"}`), "jwk"},
		{"the address of a key", add(`"jku":"https://example.com"`), "jku"},
		{"a certificate", add(`"x5c":["MII"]`), "x5c"},
		{"the address of a certificate", add(`"x5u":"https://example.com"`), "x5u"},
	}
	for _, tt := range bad {
		t.Run(tt.name, func(t *testing.T) {
			key, compact := signJWT(t, tt.header, claims)
			got := Verify(key, token(compact))
			wantFailure(t, tt.name, got, BadSignature)
			if got.Failure != nil && !strings.Contains(got.Failure.Detail, tt.says) {
				t.Errorf("it says %q, want %q", got.Failure.Detail, tt.says)
			}
			if id, err := JWTKeyID(compact); err == nil && tt.name != "another kid" {
				t.Errorf("it has the key id %q", id)
			}
		})
	}
}

func TestAJWTIsFiledUnderItsKeyID(t *testing.T) {
	key, env := jwtKey(t, "EdDSA"), token(testdata(t, "jwt/EdDSA.jwt"))
	for _, id := range []string{"", "other", "Release"} {
		env.KeyID = id
		wantFailure(t, "under "+id, Verify(key, env), BadSignature)
	}
	env.KeyID, env.Payload = "release", testdata(t, "payload.json")
	wantFailure(t, "with a payload beside it", Verify(key, env), BadSignature)
	// Whose key it is, the policy says.
	env.Payload, key.ID = nil, "other"
	if got := Verify(key, env); got.Failure != nil {
		t.Error(got.Failure)
	}
}

func TestClaimsThatAreStatements(t *testing.T) {
	app := saidByJWT().Identity
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
	claims := func(members string) string { return good[:len(good)-1] + members + "}" }
	tests := []struct {
		name, claims string
		want         Statement
	}{
		{"the payload alone", good, Statement{Identity: app}},
		{"without optional", with(`,"optional":{}`, ``), Statement{Identity: app}},
		{"who and for whom", claims(`,"iss":"a","sub":"b","aud":"c","jti":"d"`), Statement{Identity: app}},
		{"for several", claims(`,"aud":["a","b"]`), Statement{Identity: app}},
		{"iat", claims(`,"iat":5`), Statement{Identity: app, Timestamp: at(5)}},
		{"the first iat", claims(`,"iat":0`), Statement{Identity: app, Timestamp: at(0)}},
		{"the last iat", claims(`,"iat":253402300799`), Statement{Identity: app, Timestamp: at(253402300799)}},
		{"iat in another notation", claims(`,"iat":1.7672256e9`), Statement{Identity: app, Timestamp: at(1767225600)}},
		{"nbf", claims(`,"nbf":5`), Statement{Identity: app, NotBefore: at(5)}},
		{"exp", claims(`,"exp":5`), Statement{Identity: app, Expires: at(5)}},
		{"the payload's timestamp", optional(`"timestamp":5`), Statement{Identity: app, Timestamp: at(5)}},
		{"both timestamps", strings.Replace(claims(`,"iat":5`), `{}`, `{"timestamp":5}`, 1), Statement{Identity: app, Timestamp: at(5)}},
		{"exp before the payload's expiry", strings.Replace(claims(`,"exp":5`), `{}`, `{"horkos.dev/expires":"1970-01-01T00:00:06Z"}`, 1), Statement{Identity: app, Expires: at(5)}},
		{"exp behind the payload's expiry", strings.Replace(claims(`,"exp":7`), `{}`, `{"horkos.dev/expires":"1970-01-01T00:00:06Z"}`, 1), Statement{Identity: app, Expires: at(6)}},
		{"exp of 1970, of all times", claims(`,"exp":0`), Statement{Identity: app, Expires: at(0)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, compact := signJWT(t, jwtHead, tt.claims)
			if got := Verify(key, token(compact)); got.Failure != nil || *got.Statement != tt.want {
				t.Errorf("got %+v, %v; want %+v", got.Statement, got.Failure, tt.want)
			}
		})
	}
}

func TestClaimsThatAreNotStatements(t *testing.T) {
	claims := func(members string) string { return good[:len(good)-1] + members + "}" }
	tests := []struct{ name, claims, says string }{
		{"no JSON", "x", "invalid character"},
		{"nothing of a payload", `{"iat":5}`, "type"},
		{"null", `null`, "type"},
		{"a list", `[]`, "cannot unmarshal"},
		{"two documents", good + good, "after top-level"},
		{"invalid UTF-8", claims(",\"iss\":\"\xff\""), "UTF-8"},
		{"another claim", claims(`,"scope":"x"`), `unknown field "scope"`},
		{"a claim in another letter case", claims(`,"EXP":5`), "unknown field"},
		{"the payload as a claim", `{"payload":` + good + `}`, "unknown field"},
		{"exp twice", claims(`,"exp":5,"exp":6`), "duplicate"},
		{"exp twice, once escaped", claims(`,"exp":5,"e\u0078p":6`), "duplicate"},
		{"critical twice", claims(`,` + good[1:len(good)-len(`,"optional":{}}`)]), "duplicate"},
		{"something for whom twice", claims(`,"aud":{"a":1,"a":2}`), "duplicate"},
		{"exp null", claims(`,"exp":null`), "no time"},
		{"exp a string", claims(`,"exp":"5"`), "no time"},
		{"exp a list", claims(`,"exp":[5]`), "no time"},
		{"exp with a fraction", claims(`,"exp":5.5`), "whole seconds"},
		{"exp before 1970", claims(`,"exp":-1`), "whole seconds"},
		{"exp behind 9999", claims(`,"exp":253402300800`), "no time"},
		{"exp beyond any number", claims(`,"exp":1e999`), "no time"},
		{"iat null", claims(`,"iat":null`), "no time"},
		{"iat with a fraction", claims(`,"iat":0.1`), "whole seconds"},
		{"nbf true", claims(`,"nbf":true`), "no time"},
		{"iat is not the payload's timestamp", strings.Replace(claims(`,"iat":5`), `{}`, `{"timestamp":6}`, 1), "not the same"},
		{"a payload's timestamp that is none", strings.Replace(claims(`,"iat":5`), `{}`, `{"timestamp":null}`, 1), "timestamp"},
		{"iss a number", claims(`,"iss":5`), "cannot unmarshal"},
		{"another type of payload", with("atomic container signature", "x"), "type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, compact := signJWT(t, jwtHead, tt.claims)
			got := Verify(key, token(compact))
			wantFailure(t, tt.name, got, BadPayload)
			if got.Failure != nil && !strings.Contains(got.Failure.Detail, tt.says) {
				t.Errorf("it says %q, want %q", got.Failure.Detail, tt.says)
			}
		})
	}
}

func TestAJWTHasALimit(t *testing.T) {
	// The size of a JWT of ever more claims goes up in steps of one or two.
	fill := func(n int) (*Key, []byte) {
		return signJWT(t, jwtHead, optional(`"a":"`+strings.Repeat("x", n)+`"`))
	}
	_, empty := fill(0)
	n := (MaxJWTBytes - len(empty)) / 4 * 3
	for range 8 {
		key, compact := fill(n)
		if got := Verify(key, token(compact)); len(compact) <= MaxJWTBytes {
			if got.Failure != nil {
				t.Errorf("%d bytes: %v", len(compact), got.Failure)
			}
		} else {
			wantFailure(t, "above the limit", got, BadSignature)
			if _, err := JWTKeyID(compact); err == nil || !strings.Contains(err.Error(), "at most") {
				t.Errorf("%d bytes: %v", len(compact), err)
			}
			if len(compact) > MaxJWTBytes+2 {
				return
			}
		}
		n++
	}
	t.Error("the limit was not reached")
}

func TestManyDotsCostLittle(t *testing.T) {
	wantFailure(t, "dots", Verify(jwtKey(t, "EdDSA"), token(bytes.Repeat([]byte("."), MaxJWTBytes))), BadSignature)
}

// KMS-held keys pad as RFC 7518 has it; other lengths of salt are not a JWT's.
func TestThePSSSaltOfAJWTIsAsLongAsTheDigest(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey("release", private.Public(), "rsa-pss-2048-sha256")
	if err != nil {
		t.Fatal(err)
	}
	input := encodeJWT(`{"alg":"PS256","typ":"JWT","kid":"release"}`, good)
	sum := sha256.Sum256([]byte(input))
	for salt, fine := range map[int]bool{32: true, 20: false, 64: false, rsa.PSSSaltLengthAuto: false} { // the last is as long as fits
		signature, err := rsa.SignPSS(rand.Reader, private, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		got := Verify(key, token([]byte(input+"."+base64.RawURLEncoding.EncodeToString(signature))))
		if (got.Failure == nil) != fine {
			t.Errorf("salt of %d bytes: %v", salt, got.Failure)
		}
	}
}

// In DER it would be fine as a raw signature; beside it there is only one size.
func TestAnECDSASignatureOfAJWTIsTwoNumbersOfTheCurvesSize(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey("release", private.Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	input := encodeJWT(`{"alg":"ES256","typ":"JWT","kid":"release"}`, good)
	sum := sha256.Sum256([]byte(input))
	der, err := ecdsa.SignASN1(rand.Reader, private, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	field := func(n *big.Int, size int) []byte { return n.FillBytes(make([]byte, size)) }
	order := elliptic.P256().Params().N
	tests := []struct {
		name      string
		signature []byte
		fine      bool
	}{
		{"r and s", append(field(r, 32), field(s, 32)...), true},
		{"in DER", der, false},
		{"of another curve's size", append(field(r, 48), field(s, 48)...), false},
		{"s and r", append(field(s, 32), field(r, 32)...), false},
		{"r zero", append(make([]byte, 32), field(s, 32)...), false},
		{"s zero", append(field(r, 32), make([]byte, 32)...), false},
		{"r of the group's order", append(field(order, 32), field(s, 32)...), false},
		{"s of the group's order", append(field(r, 32), field(order, 32)...), false},
	}
	for _, tt := range tests {
		got := Verify(key, token([]byte(input+"."+base64.RawURLEncoding.EncodeToString(tt.signature))))
		if (got.Failure == nil) != tt.fine {
			t.Errorf("%s: %v", tt.name, got.Failure)
		}
	}
}

func TestEveryAlgorithmHasANameInJWTs(t *testing.T) {
	want := jwtAlgorithms()
	for _, a := range algorithms() {
		name := a.jws()
		if _, known := want[name]; !known {
			t.Errorf("%s is %s", a.name, name)
		}
	}
}
