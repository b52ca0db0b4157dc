package main

import (
	"testing"

	"github.com/horkos/horkos/audit"
	"github.com/horkos/horkos/verifier"
)

func TestARecordSaysItsImageOnce(t *testing.T) {
	for _, tt := range []struct {
		name, image, message, want string
	}{
		{"not attested", "cart:1", "image cart:1 is not attested: by authority release (no attestation found)", "by authority release (no attestation found)"},
		{"refused", "cart:1", "image cart:1 is refused: it is revoked", "it is revoked"},
		{"allowed", "cart:1", "image cart:1 is attested by authority release", "attested by authority release"},
		{"another image", "cart:1", "image cart:12 is refused: it is revoked", "image cart:12 is refused: it is revoked"},
		{"no image column", "", "image without a name is refused: no", "image without a name is refused: no"},
		{"words of the log", "", "a torn line was cut", "a torn line was cut"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := whyOf(&audit.Record{Image: tt.image, Message: tt.message}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestALineIsAsWideAsItsTerminal(t *testing.T) {
	r := &audit.Record{Result: verifier.Denied, Reason: verifier.NotAttested, Namespace: "shop", Pod: "cart-6f7c9d8b5-abcde", Container: "cart",
		Image: "registry.example.com/shop/cart@" + digestA, Message: "image registry.example.com/shop/cart@" + digestA + " is not attested: by authority release (no attestation found)"}
	for columns, want := range map[int]string{
		0:   "0001-01-01 00:00:00 refused  denied/NotAttested shop/cart-6f7c9d8b5-abcde/cart registry.example.com/shop/cart@" + digestA + " by authority release (no attestation found)",
		160: "0001-01-01 00:00:00 refused  denied/NotAttested shop/cart-6f7…8b5-abcde/cart registry.exam…" + digestA[len(digestA)-14:] + " by authority release (no attestation found)",
		60:  "0001-01-01 00:00:00 refused  denied/NotAttested shop/ca…cde…",
	} {
		if got := recordLine(r, columns); got != want {
			t.Errorf("%d columns:\ngot  %s\nwant %s", columns, got, want)
		}
	}
}
