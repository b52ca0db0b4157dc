// Package daemonset holds the manifests that users apply, and the program that makes the
// image they name.
package daemonset

import _ "embed" // for the manifest

//go:embed webhook/configuration.yaml
var webhookConfiguration []byte

// WebhookConfiguration is the manifest of the ValidatingWebhookConfiguration, in YAML.
func WebhookConfiguration() []byte { return webhookConfiguration }
