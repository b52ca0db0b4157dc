#!/bin/sh
# Makes the test vectors of this folder with openssl, which shares no code with what is
# tested: for each algorithm ALG of key KEY
#   KEY.pem        a public key
#   KEY.other.pem  another one of the same kind
#   ALG.sig        the signature of KEY over payload.json
# The private keys are thrown away. Needs openssl 3.
set -eu
cd "$(dirname "$0")"
private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT

printf '%s' '{"critical":{"identity":{"docker-reference":"registry.example.com/team/app"},"image":{"docker-manifest-digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},"type":"atomic container signature"},"optional":{"creator":"a test","horkos.dev/expires":"2030-01-01T00:00:00Z","timestamp":1767225600}}' > payload.json

# key NAME OPTION...: a key pair and the public half of another.
key() {
	name=$1
	shift
	for of in "$name" "$name.other"; do
		openssl genpkey "$@" -out "$private/$of" 2>/dev/null
		openssl pkey -in "$private/$of" -pubout -out "$of.pem"
	done
}

# sign KEY HASH ALG OPTION...: the signature over the hash of the payload.
sign() {
	key=$1 hash=$2 algorithm=$3
	shift 3
	openssl dgst "-$hash" -sign "$private/$key" "$@" -out "$algorithm.sig" payload.json
}

for bits in 2048 3072 4096; do
	key "rsa-$bits" -algorithm RSA -pkeyopt "rsa_keygen_bits:$bits"
	for hash in sha256 sha512; do
		if [ "$hash" = sha512 ] && [ "$bits" != 4096 ]; then
			continue
		fi
		sign "rsa-$bits" "$hash" "rsa-sign-pkcs1-$bits-$hash"
		sign "rsa-$bits" "$hash" "rsa-pss-$bits-$hash" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
	done
done
# Salts of other lengths are as good.
sign rsa-2048 sha256 rsa-pss-2048-sha256.maximum-salt -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:max
sign rsa-2048 sha256 rsa-pss-2048-sha256.no-salt -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:0

for size in 256 384 521; do
	hash=sha$size
	if [ "$size" = 521 ]; then
		hash=sha512
	fi
	key "ecdsa-p$size" -algorithm EC -pkeyopt "ec_paramgen_curve:P-$size"
	sign "ecdsa-p$size" "$hash" "ecdsa-p$size-$hash"
done

key ed25519 -algorithm ED25519
openssl pkeyutl -sign -inkey "$private/ed25519" -rawin -in payload.json -out ed25519.sig

# Keys that no algorithm wants.
key bad.rsa-1024 -algorithm RSA -pkeyopt rsa_keygen_bits:1024
key bad.rsa-2048-exponent-3 -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3
key bad.rsa-pss -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048
key bad.ecdsa-p224 -algorithm EC -pkeyopt ec_paramgen_curve:P-224
key bad.ecdsa-secp256k1 -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1
key bad.x25519 -algorithm X25519
rm bad.*.other.pem

# The PKCS#1 form of a key.
openssl rsa -pubin -in rsa-2048.pem -RSAPublicKey_out -out rsa-2048.pkcs1.pem 2>/dev/null
