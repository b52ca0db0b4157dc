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
	prune      bool
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
which is made if it is not there; "-" adds to standard input and prints. What fails leaves
the file as it was, where "> FILE" would leave it empty.`,
		Example: `  # a key, and its public half for the AttestationAuthority
  openssl ecparam -name prime256v1 -genkey -noout -out release.pem
  openssl ec -in release.pem -pubout -out release.pub

  horkos attest registry.example.com/shop/cart@sha256:... --pkix-key release.pem --merge cart.yaml

  # a second one, by an OpenPGP key, beside it
  horkos attest registry.example.com/shop/cart@sha256:... --pgp-key build.asc --passphrase-file secret --merge cart.yaml

  # for a month; those of before that have expired make room
  horkos attest registry.example.com/shop/cart@sha256:... --pkix-key release.pem --expires 720h --merge cart.yaml --prune`,
		Args:              one("name the image by its digest", "horkos attest registry.example.com/shop/cart@sha256:... --pkix-key release.pem"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			name, tag := withoutTag(args[0])
			now := time.Now()
			object, key, err := o.attest(name, now)
			if err != nil {
				return err
			}
			if tag != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "attested is %s: the tag %s is not, it may move\n", object.Spec.Attestations[0].ResourceURI, tag)
			}
			if o.merge != "" {
				m := merging{added: object}
				if o.prune {
					m.expired = expiredOf(key, o.note, now)
				}
				return m.into(cmd, o.merge)
			}
			return writeYAML(cmd.OutOrStdout(), object)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.pkixFile, "pkix-key", "", "the private key, a PEM `FILE` that is not encrypted")
	f.StringVar(&o.algorithm, "pkix-alg", "", "the signature `ALG`orithm, such as ecdsa-p256-sha256; default by the key")
	f.StringVar(&o.pgpFile, "pgp-key", "", "the OpenPGP private key, a `FILE` as of gpg --export-secret-keys")
	f.StringVar(&o.passphrase, "passphrase-file", "", "a `FILE` whose first line is the passphrase of --pgp-key")
	f.StringVar(&o.keyID, "key-id", "", "the `ID` under which the authority lists the PKIX key; default ni:///sha-256;...")
	f.StringVar(&o.note, "note", "", "the `NOTE` the attestation belongs to, such as projects/p/notes/release")
	f.DurationVar(&o.expires, "expires", 0, "let the attestation expire after this `DURATION`, such as 720h; signed")
	// It fails only for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc("pkix-alg", cobra.FixedCompletions(attestation.Algorithms(), cobra.ShellCompDirectiveNoFileComp))
	f.StringVar(&o.merge, "merge", "", "add the attestation to the ImageAttestation in this `FILE`, or with - to that on standard input")
	f.BoolVar(&o.prune, "prune", false, "with --merge, take out what has expired of the same key and note")
	return cmd
}

// withoutTag takes the tag off a name that has a digest too.
func withoutTag(name string) (rest, tag string) {
	plain := strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
	ref, err := image.Parse(plain)
	if err != nil || ref.Tag == "" || ref.Digest == "" {
		return name, ""
	}
	return ref.Repository + "@" + string(ref.Digest), ref.Tag
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
	case o.prune && !given("merge"):
		return errors.New("--prune is for --merge: it takes out of that file what has expired")
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

// attest signs, and gives the public key of what did.
func (o *attestOptions) attest(name string, now time.Time) (*attestationObject, *attestation.Key, error) {
	id, err := image.ParseIdentity(name)
	if err != nil {
		return nil, nil, fmt.Errorf("want repository@sha256:...: %w", err)
	}
	if !strings.HasPrefix(string(id.Digest), "sha256:") {
		return nil, nil, fmt.Errorf("want repository@sha256:..., an ImageAttestation has no name for %s", id.Digest)
	}
	var expires time.Time
	if o.expires > 0 {
		expires = now.Add(o.expires)
	}
	payload, err := attestation.NewPayload(id, now, expires)
	if err != nil {
		return nil, nil, err
	}
	var key *attestation.Key
	signed := horkos.Attestation{ResourceURI: id.String(), NoteName: o.note}
	if o.pgpFile != "" {
		signed.PGPSignedAttestation, key, err = o.signPGP(payload, now)
	} else {
		signed.Attestation, key, err = o.signPKIX(payload)
	}
	if err != nil {
		return nil, nil, err
	}
	return &attestationObject{
		APIVersion: horkos.GroupVersion, Kind: horkos.KindImageAttestation,
		Metadata: map[string]string{"name": strings.Replace(string(id.Digest), ":", "-", 1)},
		Spec:     horkos.ImageAttestationSpec{Attestations: []horkos.Attestation{signed}},
	}, key, nil
}

func (o *attestOptions) signPKIX(payload []byte) (*horkos.SignedPayload, *attestation.Key, error) {
	pem, err := readKeyFile(o.pkixFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read the private key: %w", err)
	}
	private, err := attestation.ParsePKIXPrivateKey(pem)
	if err != nil {
		return nil, nil, fmt.Errorf("read the private key %s: %w", o.pkixFile, err)
	}
	signature, key, err := attestation.Sign(private, o.algorithm, payload)
	if err != nil {
		return nil, nil, err
	}
	keyID := key.ID
	if o.keyID != "" {
		keyID = o.keyID
	}
	return &horkos.SignedPayload{
		SerializedPayload: payload,
		Signatures:        []horkos.Signature{{Signature: signature, PublicKeyID: keyID}},
	}, key, nil
}

func (o *attestOptions) signPGP(payload []byte, now time.Time) (*horkos.PGPSignedAttestation, *attestation.Key, error) {
	data, err := readKeyFile(o.pgpFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read the private key: %w", err)
	}
	var passphrase []byte
	if o.passphrase != "" {
		text, err := readKeyFile(o.passphrase)
		if err != nil {
			return nil, nil, fmt.Errorf("read the passphrase: %w", err)
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
		return nil, nil, fmt.Errorf("read the private key %s: %w%s", o.pgpFile, err, advice)
	}
	message, key, err := attestation.SignPGP(signer, payload, now)
	if err != nil {
		return nil, nil, err
	}
	return &horkos.PGPSignedAttestation{Signature: string(message), PGPKeyID: key.ID, ContentType: "SIMPLE_SIGNING_JSON"}, key, nil
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
