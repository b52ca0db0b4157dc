package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// maxKeyFile bounds a file with a key or a passphrase.
const maxKeyFile = 1 << 20

type attestOptions struct {
	pkixFile   string
	algorithm  string
	pgpFile    string
	passphrase string // the file it is in
	keyID      string
	note       string
	expires    time.Duration
	merge      string
}

func attestCommand() *cobra.Command {
	var o attestOptions
	cmd := &cobra.Command{
		Use:     "attest REPO@DIGEST",
		GroupID: groupAttest,
		Short:   "Sign an attestation for an image and print it as an ImageAttestation",
		Long: `attest signs a statement that the image of that digest is good, and prints an
ImageAttestation: put it in the policy folder of the nodes. The private key stays here.

With --merge the attestation is added to those that a file of one ImageAttestation holds,
which is made if it is not there; "-" adds to standard input and prints.`,
		Example: `  # a key, and its public half for the AttestationAuthority
  openssl ecparam -name prime256v1 -genkey -noout -out release.pem
  openssl ec -in release.pem -pubout -out release.pub

  horkos attest registry.example.com/shop/cart@sha256:... --pkix-key release.pem > cart.yaml

  # a second one, by an OpenPGP key, beside it
  horkos attest registry.example.com/shop/cart@sha256:... --pgp-key build.asc --passphrase-file secret --merge cart.yaml

  # for a month
  horkos attest registry.example.com/shop/cart@sha256:... --pkix-key release.pem --expires 720h`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			object, err := o.attest(args[0], time.Now())
			if err != nil {
				return err
			}
			if o.merge != "" {
				return mergeInto(cmd, o.merge, object)
			}
			return writeYAML(cmd.OutOrStdout(), object)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.pkixFile, "pkix-key", "", "the private key, a PEM `FILE`")
	f.StringVar(&o.algorithm, "pkix-alg", "", "the signature `ALG`orithm, such as ecdsa-p256-sha256; default by the key")
	f.StringVar(&o.pgpFile, "pgp-key", "", "the OpenPGP private key, a `FILE` as of gpg --export-secret-keys")
	f.StringVar(&o.passphrase, "passphrase-file", "", "a `FILE` whose first line is the passphrase of --pgp-key")
	f.StringVar(&o.keyID, "key-id", "", "the `ID` under which the authority lists the PKIX key; default ni:///sha-256;...")
	f.StringVar(&o.note, "note", "", "the `NOTE` the attestation belongs to, such as projects/p/notes/release")
	f.DurationVar(&o.expires, "expires", 0, "let the attestation expire after this `DURATION`, such as 720h; signed")
	f.StringVar(&o.merge, "merge", "", "add the attestation to the ImageAttestation in this `FILE`, or with - to that on standard input")
	return cmd
}

// check says which flags do not go together.
func (o *attestOptions) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case given("expires") && o.expires <= 0:
		return fmt.Errorf("--expires: want a time to come, such as 720h, not %s", o.expires)
	case o.pkixFile == "" && o.pgpFile == "":
		return errors.New("--pkix-key or --pgp-key is needed: the private key to sign with")
	case o.pkixFile != "" && o.pgpFile != "":
		return errors.New("--pkix-key and --pgp-key: want one of them; add the second attestation with --merge")
	case o.pgpFile == "" && given("passphrase-file"):
		return errors.New("--passphrase-file is for --pgp-key; a PKIX key is read as it is, without a passphrase")
	case o.pgpFile != "" && given("pkix-alg"):
		return errors.New("--pkix-alg is for --pkix-key; an OpenPGP key says its own algorithm")
	case o.pgpFile != "" && given("key-id"):
		return errors.New("--key-id is for --pkix-key; an OpenPGP key is known by its fingerprint")
	case given("merge") && o.merge == "":
		return errors.New("--merge: want a file, or -")
	}
	return nil
}

// attestationObject is an ImageAttestation as a manifest.
type attestationObject struct {
	APIVersion string                      `json:"apiVersion"`
	Kind       string                      `json:"kind"`
	Metadata   map[string]string           `json:"metadata"`
	Spec       horkos.ImageAttestationSpec `json:"spec"`
}

func (o *attestOptions) attest(name string, now time.Time) (*attestationObject, error) {
	id, err := image.ParseIdentity(name)
	if err != nil {
		return nil, fmt.Errorf("want repository@sha256:...: %w", err)
	}
	if !strings.HasPrefix(string(id.Digest), "sha256:") {
		return nil, fmt.Errorf("want repository@sha256:..., an ImageAttestation has no name for %s", id.Digest)
	}
	var expires time.Time
	if o.expires > 0 {
		expires = now.Add(o.expires)
	}
	payload, err := attestation.NewPayload(id, now, expires)
	if err != nil {
		return nil, err
	}
	signed := horkos.Attestation{ResourceURI: id.String(), NoteName: o.note}
	if o.pgpFile != "" {
		signed.PGPSignedAttestation, err = o.signPGP(payload, now)
	} else {
		signed.Attestation, err = o.signPKIX(payload)
	}
	if err != nil {
		return nil, err
	}
	return &attestationObject{
		APIVersion: horkos.GroupVersion, Kind: horkos.KindImageAttestation,
		Metadata: map[string]string{"name": strings.Replace(string(id.Digest), ":", "-", 1)},
		Spec:     horkos.ImageAttestationSpec{Attestations: []horkos.Attestation{signed}},
	}, nil
}

func (o *attestOptions) signPKIX(payload []byte) (*horkos.SignedPayload, error) {
	pem, err := readKeyFile(o.pkixFile)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	private, err := attestation.ParsePKIXPrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("read the private key %s: %w", o.pkixFile, err)
	}
	signature, key, err := attestation.Sign(private, o.algorithm, payload)
	if err != nil {
		return nil, err
	}
	keyID := key.ID
	if o.keyID != "" {
		keyID = o.keyID
	}
	return &horkos.SignedPayload{
		SerializedPayload: payload,
		Signatures:        []horkos.Signature{{Signature: signature, PublicKeyID: keyID}},
	}, nil
}

func (o *attestOptions) signPGP(payload []byte, now time.Time) (*horkos.PGPSignedAttestation, error) {
	data, err := readKeyFile(o.pgpFile)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	var passphrase []byte
	if o.passphrase != "" {
		text, err := readKeyFile(o.passphrase)
		if err != nil {
			return nil, fmt.Errorf("read the passphrase: %w", err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		passphrase = []byte(strings.TrimSuffix(first, "\r"))
	}
	signer, err := attestation.ParsePGPPrivateKey(data, passphrase)
	if err != nil {
		advice := ""
		if o.passphrase == "" {
			advice = " (the passphrase, if it has one, comes from --passphrase-file)"
		}
		return nil, fmt.Errorf("read the private key %s: %w%s", o.pgpFile, err, advice)
	}
	message, key, err := attestation.SignPGP(signer, payload, now)
	if err != nil {
		return nil, err
	}
	return &horkos.PGPSignedAttestation{Signature: string(message), PGPKeyID: key.ID, ContentType: "SIMPLE_SIGNING_JSON"}, nil
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxKeyFile)
	}
	return data, nil
}

func writeYAML(w io.Writer, v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}
