#!/bin/sh
# Makes the OpenPGP test vectors in the folder pgp with GnuPG, which shares no code with
# what is tested:
#   KEY.asc     a public key
#   NAME.msg    a message that must verify, or not (pgp_test.go says which)
#   *.private.asc  private keys, good for nothing else: the passphrase of one is "correct horse"
# Needs gpg 2.2.
set -eu
cd "$(dirname "$0")"
GNUPGHOME=$(mktemp -d)
export GNUPGHOME
trap 'gpgconf --kill gpg-agent; rm -rf "$GNUPGHOME"' EXIT
chmod 700 "$GNUPGHOME"
rm -rf pgp
mkdir pgp

payload=payload.json
sed 's/,/,\n/g' payload.json > pgp/lines.json

now=20260102T000000

# g OPTION...: gpg at the time $now, which stands still.
g() {
	gpg --batch --quiet --no-tty --yes --pinentry-mode loopback --passphrase '' \
		--trust-model always --no-auto-key-retrieve --no-emit-version --faked-system-time "$now!" "$@"
}

# at TIME COMMAND...: the command at another time.
at() {
	(
		now=$1
		shift
		"$@"
	)
}

# generate NAME ALGORITHM USAGE [OPTION...]: a key. fpr NAME is its fingerprint.
generate() {
	name=$1 algorithm=$2 usage=$3
	shift 3
	at 20250101T000000 g "$@" --quick-generate-key "$name" "$algorithm" "$usage" never
}

fpr() { gpg --batch --with-colons --list-keys "=$1" | awk -F: '$1 == "fpr" { print $10; exit }'; }

# subkey NAME N: the fingerprint of its Nth subkey.
subkey() { gpg --batch --with-colons --list-keys "=$1" | awk -F: -v n="$2" '$1 == "fpr" && k++ == n { print $10; exit }'; }

public() { gpg --batch --no-emit-version --armor --export "=$1" > "pgp/$1.asc"; }

# message FILE KEY OPTION...: the payload signed, with the options' armor or without.
message() {
	file=$1 key=$2
	shift 2
	g --local-user "$(fpr "$key")" --output "pgp/$file.msg" "$@" "$payload"
}

for k in "rsa rsa2048" "rsa-other rsa2048" "rsa-4096 rsa4096" "ecdsa-p256 nistp256" "ecdsa-p384 nistp384" "ecdsa-p521 nistp521" \
	"ed25519 ed25519" "ed25519-other ed25519"; do
	# shellcheck disable=SC2086
	set -- $k
	generate "$1" "$2" cert,sign
	public "$1"
done

# Algorithms.
for k in rsa rsa-4096 ecdsa-p256 ecdsa-p384 ecdsa-p521 ed25519; do
	message "$k" "$k" --armor --sign
done
message sha384 rsa --armor --digest-algo SHA384 --sign
message sha512 rsa --armor --digest-algo SHA512 --sign

# Shapes.
for c in none zip zlib bzip2; do
	message "ed25519.$c" ed25519 --compress-algo "$c" --sign
done
message ed25519.armored ed25519 --armor --compress-algo none --sign
message ed25519.comment ed25519 --armor --comment 'made by a test' --sign
base64 pgp/ed25519.none.msg > pgp/ed25519.base64.msg
base64 pgp/ed25519.armored.msg > pgp/ed25519.base64-of-armor.msg
message ed25519.text ed25519 --armor --textmode --sign
payload=pgp/lines.json
message ed25519.text-lines ed25519 --armor --textmode --compress-algo none --sign
message rsa.text-lines rsa --textmode --sign
payload=payload.json
message two rsa --local-user "$(fpr ed25519)" --armor --sign
message notation ed25519 --armor --sig-notation test@example.com=yes --sign
message expires ed25519 --armor --default-sig-expire 30d --sign
message detached ed25519 --armor --detach-sign
message detached-binary ed25519 --detach-sign
message cleartext ed25519 --armor --clearsign
message sha1 rsa --armor --digest-algo SHA1 --sign
message sha224 rsa --armor --digest-algo SHA224 --sign
message ripemd160 rsa --armor --digest-algo RIPEMD160 --sign
message critical-notation ed25519 --armor --sig-notation '!test@example.com=yes' --sign
g --store --output pgp/unsigned.msg "$payload"

# Subkeys: a primary key that only certifies, two subkeys that sign, one that encrypts.
generate subkeys ed25519 cert
at 20250101T000000 g --quick-add-key "$(fpr subkeys)" ed25519 sign never
at 20250102T000000 g --quick-add-key "$(fpr subkeys)" nistp256/ecdsa sign never
at 20250101T000000 g --quick-add-key "$(fpr subkeys)" cv25519 encr never
public subkeys
g --local-user "$(subkey subkeys 1)!" --armor --output pgp/subkey.msg --sign "$payload"
g --local-user "$(subkey subkeys 2)!" --armor --output pgp/subkey-ecdsa.msg --sign "$payload"
message encrypted subkeys --armor --recipient "$(fpr subkeys)" --encrypt --sign
gpg --batch --no-tty --quiet --armor --passphrase x --pinentry-mode loopback --output pgp/symmetric.msg --symmetric "$payload"

# Private keys, and one with a passphrase.
g --no-emit-version --armor --export-secret-keys "=subkeys" > pgp/subkeys.private.asc
g --no-emit-version --armor --export-secret-subkeys "=subkeys" > pgp/subkeys-only.private.asc
g --no-emit-version --armor --export-secret-keys "=rsa" > pgp/rsa.private.asc
g --no-emit-version --armor --export-secret-keys "=ecdsa-p384" > pgp/ecdsa-p384.private.asc
at 20250101T000000 g --passphrase 'correct horse' --quick-generate-key passphrase ed25519 cert,sign never
public passphrase
g --passphrase 'correct horse' --no-emit-version --armor --export-secret-keys "=passphrase" > pgp/passphrase.private.asc

# A key and a subkey that expired on 2025-07-01: signatures of before and after.
generate expired ed25519 cert,sign
at 20250301T000000 message expired.before expired --armor --sign
at 20250630T235959 message expired.last expired --armor --sign
at 20250701T000000 message expired.first expired --armor --sign
at 20260102T000000 message expired.after expired --armor --sign
at 20250401T000000 g --quick-set-expire "$(fpr expired)" 20250701T000000
public expired
generate expired-subkey ed25519 cert
at 20250201T000000 g --quick-add-key "$(fpr expired-subkey)" ed25519 sign never
at 20250301T000000 message expired-subkey.before expired-subkey --armor --sign
at 20260102T000000 message expired-subkey.after expired-subkey --armor --sign
at 20250401T000000 g --quick-set-expire "$(fpr expired-subkey)" 20250701T000000 "$(subkey expired-subkey 1)"
public expired-subkey

# Revoked: a key; a subkey, beside one that is not; a user id, beside one that is not.
generate revoked ed25519 cert,sign
message revoked revoked --armor --sign
sed 's/^:---/---/' "$GNUPGHOME/openpgp-revocs.d/$(fpr revoked).rev" | g --import
public revoked
generate revoked-subkey ed25519 cert,sign
at 20250101T000000 g --quick-add-key "$(fpr revoked-subkey)" ed25519 sign never
g --local-user "$(subkey revoked-subkey 1)!" --armor --output pgp/revoked-subkey.msg --sign "$payload"
g --local-user "$(fpr revoked-subkey)!" --armor --output pgp/revoked-subkey.primary.msg --sign "$payload"
printf 'key 1\nrevkey\ny\n1\n\ny\nsave\n' | gpg --quiet --no-tty --pinentry-mode loopback --passphrase '' --command-fd 0 \
	--faked-system-time "$now!" --edit-key "$(fpr revoked-subkey)" > /dev/null 2>&1
public revoked-subkey
generate revoked-uid ed25519 cert,sign
message revoked-uid revoked-uid --armor --sign
g --quick-add-uid "$(fpr revoked-uid)" "the other name"
g --quick-revoke-uid "$(fpr revoked-uid)" "revoked-uid"
gpg --batch --no-emit-version --armor --export "$(gpg --batch --with-colons --list-keys 'the other name' | awk -F: '$1 == "fpr" { print $10; exit }')" > pgp/revoked-uid.asc

# Certified by another key too.
generate certified ed25519 cert,sign
g --local-user "$(fpr rsa)" --quick-sign-key "$(fpr certified)" > /dev/null 2>&1
message certified certified --armor --sign
public certified

# Keys that are not accepted.
generate bad-rsa-1024 rsa1024 cert,sign
generate bad-dsa dsa2048 cert,sign
generate bad-secp256k1 secp256k1 cert,sign
generate bad-brainpool brainpoolP256r1 cert,sign
generate bad-sha1 rsa2048 cert,sign --cert-digest-algo SHA1
for k in bad-rsa-1024 bad-dsa bad-secp256k1 bad-brainpool bad-sha1; do
	public "$k"
done
gpg --batch --no-emit-version --armor --export "=rsa" "=ed25519" > pgp/bad-two-keys.asc

# The binary form of a key.
gpg --batch --export "=ed25519" > pgp/ed25519.gpg
