package verifier_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
	"github.com/horkos/horkos/verifier/policy"
	"github.com/horkos/horkos/verifier/source/objects"
)

// An embedder verifies an image by manifests: policies, keys and attestations in one file.
func Example() {
	manifests, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		log.Fatal(err)
	}
	image, err := verifier.AsWritten("registry.example.com/shop/cart@sha256:50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c")
	if err != nil {
		log.Fatal(err)
	}

	decoded, err := crds.Decode(manifests, "example.yaml")
	if err != nil {
		log.Fatal(err)
	}
	snapshot := policy.Compile(crds.Set{Origin: crds.Folder, Objects: decoded})
	records, _ := objects.Records(decoded)
	memory := evidence.NewMemory()
	memory.Replace("folder", records)
	decider := verifier.Decider{Sources: []evidence.Question{{Source: "folder"}}}
	request := verifier.Request{Namespace: "shop", Images: []verifier.Image{image}, Time: time.Now()}
	decision, err := decider.Verify(context.Background(), &request, snapshot, memory)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(decision.Result, decision.Reason)
	// Output: allowed Attested
}

// Deciding does no I/O and waits for nothing. What is not known yet comes back as questions.
func ExampleDecider_Decide() {
	manifests, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		log.Fatal(err)
	}
	decoded, err := crds.Decode(manifests, "example.yaml")
	if err != nil {
		log.Fatal(err)
	}
	snapshot := policy.Compile(crds.Set{Origin: crds.Folder, Objects: decoded})
	image, err := verifier.AsWritten("registry.example.com/shop/cart@sha256:50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c")
	if err != nil {
		log.Fatal(err)
	}
	decider := verifier.Decider{Sources: []evidence.Question{{Source: "folder"}}}
	request := verifier.Request{Namespace: "shop", Images: []verifier.Image{image}, Time: time.Now()}

	decision := decider.Decide(&request, snapshot, evidence.NewMemory()) // which no source has filled
	fmt.Println(decision.Result, decision.Reason)
	for _, question := range decision.Missing {
		fmt.Println("ask", question.Source, "about", question.Identity.Repository)
	}
	// Output:
	// unresolved EvidencePending
	// ask folder about registry.example.com/shop/cart
}
