package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/horkos/horkos/crds/horkos"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

type attestOptions struct {
	keyFile   string
	algorithm string
	keyID     string
	note      string
	expires   time.Duration
}

func attestCommand() *cobra.Command {
	var o attestOptions
	cmd := &cobra.Command{
		Use:     "attest REPO@DIGEST",
		GroupID: "attest",
		Short:   "Sign an attestation for an image and print it as an ImageAttestation",
		Long: `attest signs a statement that the image of that digest is good, and prints an
ImageAttestation: put it in the policy folder of the nodes. The private key stays here.`,
		Example: `  openssl ecparam -name prime256v1 -genkey -noout -out release.pem
  openssl ec -in release.pem -pubout -out release.pub    # for the AttestationAuthority

  horkos attest registry.example.com/shop/cart@sha256:... --pkix-key release.pem > cart.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("expires") && o.expires <= 0 {
				return fmt.Errorf("--expires: want a time to come, such as 720h, not %s", o.expires)
			}
			object, err := o.attest(args[0], time.Now())
			if err != nil {
				return err
			}
			text, err := yaml.Marshal(object)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.keyFile, "pkix-key", "", "the private key, a PEM `FILE`")
	f.StringVar(&o.algorithm, "pkix-alg", "", "the signature `ALG`orithm, such as ecdsa-p256-sha256; default by the key")
	f.StringVar(&o.keyID, "key-id", "", "the `ID` under which the authority lists the key; default ni:///sha-256;...")
	f.StringVar(&o.note, "note", "", "the `NOTE` the attestation belongs to, such as projects/p/notes/release")
	f.DurationVar(&o.expires, "expires", 0, "let the attestation expire after this `DURATION`, such as 720h; signed")
	return cmd
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
	if o.keyFile == "" {
		return nil, fmt.Errorf("--pkix-key is needed: the private key to sign with")
	}
	pem, err := os.ReadFile(o.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	private, err := attestation.ParsePKIXPrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("read the private key %s: %w", o.keyFile, err)
	}
	var expires time.Time
	if o.expires > 0 {
		expires = now.Add(o.expires)
	}
	payload, err := attestation.NewPayload(id, now, expires)
	if err != nil {
		return nil, err
	}
	signature, key, err := attestation.Sign(private, o.algorithm, payload)
	if err != nil {
		return nil, err
	}
	keyID := key.ID
	if o.keyID != "" {
		keyID = o.keyID
	}
	return &attestationObject{
		APIVersion: horkos.GroupVersion, Kind: horkos.KindImageAttestation,
		Metadata: map[string]string{"name": strings.Replace(string(id.Digest), ":", "-", 1)},
		Spec: horkos.ImageAttestationSpec{Attestations: []horkos.Attestation{{
			ResourceURI: id.String(),
			NoteName:    o.note,
			Attestation: &horkos.SignedPayload{
				SerializedPayload: payload,
				Signatures:        []horkos.Signature{{Signature: signature, PublicKeyID: keyID}},
			},
		}}},
	}, nil
}
