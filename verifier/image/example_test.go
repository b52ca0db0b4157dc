package image_test

import (
	"fmt"
	"log"

	"github.com/horkos/horkos/verifier/image"
)

// All ways to write a name are one.
func ExampleParse() {
	for _, name := range []string{"nginx", "index.docker.io/library/nginx:latest", "registry.example.com:5000/team/app:1"} {
		ref, err := image.Parse(name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ref)
	}
	_, err := image.Parse("sha256:0123456789ab")
	fmt.Println(err)
	// Output:
	// docker.io/library/nginx:latest
	// docker.io/library/nginx:latest
	// registry.example.com:5000/team/app:1
	// image reference "sha256:0123456789ab": this is an image id, not a name
}
