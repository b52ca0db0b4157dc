#!/bin/sh
# Makes the OpenPGP keys of the cases with GnuPG 2.2; they are good for nothing else:
#   pgp          signs by a subkey
#   pgp-revoked  the same key, revoked; there is only its public half
#   pgp-expired  from 2025-01-01 to 2026-01-01
set -eu
cd "$(dirname "$0")"
GNUPGHOME=$(mktemp -d)
export GNUPGHOME
trap 'gpgconf --kill gpg-agent; rm -rf "$GNUPGHOME"' EXIT
chmod 700 "$GNUPGHOME"

g() {
	gpg --batch --quiet --no-tty --yes --pinentry-mode loopback --passphrase '' --no-emit-version --faked-system-time 20250101T000000! "$@"
}
fpr() { gpg --batch --with-colons --list-keys "=$1" | awk -F: '$1 == "fpr" { print $10; exit }'; }
export_key() {
	g --armor --export "=$1" > "$1.asc"
	g --armor --export-secret-keys "=$1" > "$1.private.asc"
}

g --quick-generate-key pgp ed25519 cert never
g --quick-add-key "$(fpr pgp)" ed25519 sign never
export_key pgp
g --quick-generate-key pgp-expired ed25519 sign 365d
export_key pgp-expired

# gpg writes the revocation with a colon before the armor, so that nobody imports it by accident.
sed 's/^:---/---/' "$GNUPGHOME/openpgp-revocs.d/$(fpr pgp).rev" > "$GNUPGHOME/revocation"
g --import "$GNUPGHOME/revocation"
g --armor --export "=pgp" > pgp-revoked.asc
