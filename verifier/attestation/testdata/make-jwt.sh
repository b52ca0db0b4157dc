#!/bin/sh
# Makes the JWT test vectors in the folder jwt with openssl, which shares no code with what
# is tested: for each ALG of RFC 7518, section 3.1
#   ALG.pem  a public key
#   ALG.jwt  claims.json signed by it under the key id "release"
# and none.jwt, and HS256.jwt with RS256.pem as its secret. Needs openssl 3 and xxd.
set -eu
cd "$(dirname "$0")"
private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
rm -rf jwt
mkdir jwt

printf '%s' '{"critical":{"identity":{"docker-reference":"registry.example.com/team/app"},"image":{"docker-manifest-digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},"type":"atomic container signature"},"iss":"a test","sub":"an image","aud":["nodes"],"jti":"1","iat":1767225600,"nbf":1767225601,"exp":1893456000}' > jwt/claims.json

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# input ALG: what is signed.
input() {
	printf '{"alg":"%s","typ":"JWT","kid":"release"}' "$1" | base64url
	printf .
	base64url < jwt/claims.json
}

# token ALG SIGN...: a JWT, with what a command makes of its input as the signature.
token() {
	alg=$1
	shift
	input "$alg" > "$private/input"
	"$@" < "$private/input" > "$private/signature"
	{
		cat "$private/input"
		printf .
		base64url < "$private/signature"
	} > "jwt/$alg.jwt"
}

# key ALG OPTION...: a key pair.
key() {
	alg=$1
	shift
	openssl genpkey "$@" -out "$private/$alg" 2>/dev/null
	openssl pkey -in "$private/$alg" -pubout -out "jwt/$alg.pem"
}

# raw SIZE: r and s, each of SIZE bytes, of an ECDSA signature in DER.
raw() {
	openssl asn1parse -inform DER | sed -n 's/.*INTEGER *://p' | while read -r n; do
		printf "%$((2 * $1))s" "$n" | tr ' ' 0 | xxd -r -p
	done
}

ecdsa() { openssl dgst "-sha$1" -sign "$private/ES$1" | raw "$2"; }
edwards() {
	cat > "$private/message" # openssl wants to know its length
	openssl pkeyutl -sign -inkey "$private/EdDSA" -rawin -in "$private/message"
}

for hash in 256 512; do
	bits=2048
	if [ "$hash" = 512 ]; then
		bits=4096
	fi
	key "RS$hash" -algorithm RSA -pkeyopt "rsa_keygen_bits:$bits"
	token "RS$hash" openssl dgst "-sha$hash" -sign "$private/RS$hash"
	key "PS$hash" -algorithm RSA -pkeyopt "rsa_keygen_bits:$bits"
	token "PS$hash" openssl dgst "-sha$hash" -sign "$private/PS$hash" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
done
key ES256 -algorithm EC -pkeyopt ec_paramgen_curve:P-256
token ES256 ecdsa 256 32
key ES384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
token ES384 ecdsa 384 48
key ES512 -algorithm EC -pkeyopt ec_paramgen_curve:P-521
token ES512 ecdsa 512 66
key EdDSA -algorithm ED25519
token EdDSA edwards

token none true
token HS256 openssl dgst -sha256 -binary -hmac "$(cat jwt/RS256.pem)"
