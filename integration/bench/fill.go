package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/horkos/horkos/integration/harness"
)

// teamObjects is how many objects a team has: its namespace, an authority, one policy of
// each kind of Kritis, and one object of the other kinds, in turn.
const teamObjects = 5

const (
	kritisAPI   = "/apis/kritis.grafeas.io/v1beta1"
	notationAPI = "/apis/notation.nirmata.io/v1alpha1"
	horkosAPI   = "/apis/horkos.dev/v1alpha1"
)

// placed is an object and the path of its collection.
type placed struct {
	at     string
	object harness.Object
}

// fill makes the objects that nodes follow, and the attestations that they ask for.
func (s *scale) fill(ctx context.Context) error {
	authority, certificate, err := newPEM()
	if err != nil {
		return err
	}
	var first, rest []placed
	for i := range s.objects / teamObjects {
		namespace, others := team(i, authority, certificate)
		first, rest = append(first, namespace), append(rest, others...)
	}
	for i := range s.images() {
		rest = append(rest, placed{horkosAPI + "/imageattestations", attestation(i)})
	}
	rest = append(rest, placed{horkosAPI + "/clusterattestationpolicies", clusterPolicy(probe, authority)})
	s.say("making %d objects that each node follows, and %d ImageAttestations", s.objects, s.images())
	for _, all := range [][]placed{first, rest} {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(8)
		for _, o := range all {
			group.Go(func() error {
				_, err := s.control.Admin.Create(ctx, o.at, o.object)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// images is how many images are attested.
func (s *scale) images() int { return 200 }

func team(i int, authority, certificate string) (namespace placed, others []placed) {
	name := fmt.Sprintf("team-%04d", i)
	in := func(kind, plural string, spec harness.Object) placed {
		return placed{kritisAPI + "/namespaces/" + name + "/" + plural, object("kritis.grafeas.io/v1beta1", kind, "release", spec)}
	}
	namespace = placed{"/api/v1/namespaces", harness.Object{"metadata": harness.Object{
		"name": name, "labels": harness.Object{"team": name, "environment": "production"}}}}
	others = []placed{
		in("AttestationAuthority", "attestationauthorities", harness.Object{
			"noteReference": "projects/" + name + "/notes/release",
			"publicKeys":    []any{harness.Object{"keyType": "PKIX", "pkixPublicKey": harness.Object{"publicKeyPem": authority}}}}),
		in("GenericAttestationPolicy", "genericattestationpolicies", harness.Object{"attestationAuthorityNames": []any{"release"}}),
		in("ImageSecurityPolicy", "imagesecuritypolicies", harness.Object{
			"enforcement": "Audit", "packageVulnerabilityRequirements": harness.Object{"maximumSeverity": "HIGH"}}),
	}
	switch i % 5 {
	case 0:
		others = append(others, placed{kritisAPI + "/admissionallowlists", object("kritis.grafeas.io/v1beta1", "AdmissionAllowlist", name,
			harness.Object{"patterns": []any{harness.Object{"namePattern": "registry.example.com/" + name + "/*"}}})})
	case 1:
		others = append(others, placed{horkosAPI + "/clusterattestationpolicies", clusterPolicy(name, authority)})
	case 2:
		others = append(others, placed{horkosAPI + "/imagerevocations", object("horkos.dev/v1alpha1", "ImageRevocation", name,
			harness.Object{"digests": []any{digest("revoked " + name)}, "reason": "CVE-2026-0001"})})
	case 3:
		others = append(others, placed{notationAPI + "/trustpolicies", object("notation.nirmata.io/v1alpha1", "TrustPolicy", name, harness.Object{
			"version": "1.0", "trustPolicyName": name, "trustPolicies": []any{harness.Object{
				"name": name, "registryScopes": []any{"*"}, "signatureVerification": harness.Object{"level": "strict"},
				"trustStores": []any{"ca:" + name}, "trustedIdentities": []any{"*"}}}})})
	case 4:
		others = append(others, placed{notationAPI + "/truststores", object("notation.nirmata.io/v1alpha1", "TrustStore", name,
			harness.Object{"trustStoreName": name, "type": "ca", "caBundle": certificate})})
	}
	return namespace, others
}

func object(apiVersion, kind, name string, spec harness.Object) harness.Object {
	return harness.Object{"apiVersion": apiVersion, "kind": kind, "metadata": harness.Object{"name": name}, "spec": spec}
}

func clusterPolicy(name, authority string) harness.Object {
	return object("horkos.dev/v1alpha1", "ClusterAttestationPolicy", name, harness.Object{
		"images": []any{"registry.example.com/" + name + "/**"},
		"authorities": []any{harness.Object{"name": "release", "publicKeys": []any{
			harness.Object{"keyType": "PKIX", "pkixPublicKey": harness.Object{"publicKeyPem": authority}}}}}})
}

// attestation is one of a usual size; nobody verifies it here.
func attestation(i int) harness.Object {
	image := digest(fmt.Sprint("image ", i))
	payload := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a payload of Red Hat's simple signing has about this size; ", 4)))
	signature := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("sixty-eight bytes, as a signature on P-256 ", 2)))
	return object("horkos.dev/v1alpha1", "ImageAttestation", strings.Replace(image, ":", "-", 1), harness.Object{"attestations": []any{harness.Object{
		"resourceUri": "registry.example.com/team/app@" + image,
		"attestation": harness.Object{"serializedPayload": payload, "signatures": []any{harness.Object{"signature": signature, "publicKeyId": "ni:///sha-256;" + image}}},
	}}})
}

func digest(of string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(of))) }

// newPEM makes a public key, and a certificate of it.
func newPEM() (public, certificate string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotAfter: time.Now().Add(time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", "", err
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return encode("PUBLIC KEY", der), encode("CERTIFICATE", signed), nil
}
