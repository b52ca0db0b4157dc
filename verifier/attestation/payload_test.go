package attestation

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/horkos/horkos/verifier/image"
)

const (
	digest = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	good   = `{"critical":{"identity":{"docker-reference":"registry.example.com/team/app"},"image":{"docker-manifest-digest":"` + digest + `"},"type":"atomic container signature"},"optional":{}}`
)

func with(old, replacement string) string { return strings.Replace(good, old, replacement, 1) }

func optional(members string) string { return with(`"optional":{}`, `"optional":{`+members+`}`) }

func TestPayloadsThatAreStatements(t *testing.T) {
	app := image.Identity{Repository: "registry.example.com/team/app", Digest: digest}
	nginx := image.Identity{Repository: "docker.io/library/nginx", Digest: digest}
	at := time.Unix(1767225600, 0).UTC()
	tests := []struct {
		name, payload string
		want          Statement
	}{
		{"without anything optional", good, Statement{Identity: app}},
		{"without optional", with(`,"optional":{}`, ``), Statement{Identity: app}},
		{"with a null optional", with(`{}}`, `null}`), Statement{Identity: app}},
		{"of Binary Authorization's type", with("atomic container signature", "Google cloud binauthz container signature"), Statement{Identity: app}},
		{"in another order, with white space", "\n{ \"optional\" : null ,\t" + with(`,"optional":{}`, "")[1:] + "\r\n", Statement{Identity: app}},
		{"of a repository with a tag", with("team/app", "team/app:v1"), Statement{Identity: app}},
		{"of a repository with the same digest", with("team/app", "team/app@"+digest), Statement{Identity: app}},
		{"of a short name", with("registry.example.com/team/app", "nginx"), Statement{Identity: nginx}},
		{"of an old name of docker.io", with("registry.example.com/team/app", "index.docker.io/library/nginx"), Statement{Identity: nginx}},
		{"of a name written with escapes", with("team/app", `te\u0061m/app`), Statement{Identity: app}},
		{"with a timestamp", optional(`"timestamp":1767225600`), Statement{Identity: app, Timestamp: at}},
		{"with a timestamp in another notation", optional(`"timestamp":1.7672256e9`), Statement{Identity: app, Timestamp: at}},
		{"with the first timestamp", optional(`"timestamp":0`), Statement{Identity: app, Timestamp: time.Unix(0, 0).UTC()}},
		{"with the last timestamp", optional(`"timestamp":253402300799`), Statement{Identity: app, Timestamp: time.Unix(253402300799, 0).UTC()}},
		{"with an expiry", optional(`"horkos.dev/expires":"2026-01-01T01:00:00+01:00"`), Statement{Identity: app, Expires: at}},
		{"with other optional members", optional(`"creator":"x","Timestamp":"y","expires":[1,{"a":null}],"n":1.5`), Statement{Identity: app}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodePayload([]byte(tt.payload))
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestPayloadsThatAreNotStatements(t *testing.T) {
	tests := []struct{ name, payload, says string }{
		{"nothing", ``, "unexpected end"},
		{"null", `null`, "type"},
		{"a list", `[]`, "cannot unmarshal"},
		{"two documents", good + good, "after top-level value"},
		{"something behind it", good + "x", "after top-level value"},
		{"cut short", good[:len(good)-1], "unexpected end"},
		{"a byte order mark", "\ufeff" + good, "invalid character"},
		{"invalid UTF-8", optional("\"a\":\"\xff\""), "UTF-8"},
		{"a nesting without end", optional(`"a":` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000)), "depth"},

		{"an unknown member beside critical", with(`"optional"`, `"extra":1,"optional"`), `unknown field "extra"`},
		{"an unknown member in critical", with(`"type"`, `"extra":1,"type"`), `unknown field "critical.extra"`},
		{"an unknown member in the identity", with(`"docker-reference"`, `"extra":1,"docker-reference"`), "unknown field"},
		{"an unknown member in the image", with(`"docker-manifest-digest"`, `"extra":1,"docker-manifest-digest"`), "unknown field"},
		{"critical in another letter case", with(`"critical"`, `"Critical"`), "unknown field"},
		{"type in another letter case", with(`"type"`, `"TYPE"`), "unknown field"},
		{"a name that folds to type's", with(`"docker-reference"`, `"doc\u212aer-reference"`), "unknown field"},
		{"optional in another letter case", with(`"optional"`, `"OPTIONAL"`), "unknown field"},

		{"critical twice", with(`"optional":{}`, good[1:len(good)-len(`,"optional":{}}`)]), "duplicate field"},
		{"type twice", with(`"type"`, `"type":"atomic container signature","type"`), "duplicate field"},
		{"type twice, once null", with(`"type"`, `"type":null,"type"`), "duplicate field"},
		{"type twice, once escaped", with(`"type"`, `"typ\u0065":"x","type"`), "duplicate field"},
		{"identity twice", with(`"image"`, `"identity":{},"image"`), "duplicate field"},
		{"docker-reference twice", with(`"docker-reference"`, `"docker-reference":"a","docker-reference"`), "duplicate field"},
		{"image twice", with(`"image"`, `"image":{},"image"`), "duplicate field"},
		{"docker-manifest-digest twice", with(`"docker-manifest-digest"`, `"docker-manifest-digest":"`+digest+`","docker-manifest-digest"`), "duplicate field"},
		{"optional twice", with(`"optional"`, `"optional":{},"optional"`), "duplicate field"},
		{"timestamp twice", optional(`"timestamp":1,"timestamp":1`), "duplicate field"},
		{"expires twice", optional(`"horkos.dev/expires":"2030-01-01T00:00:00Z","horkos.dev/expires":"2040-01-01T00:00:00Z"`), "duplicate field"},
		{"something free twice", optional(`"a":{"b":1,"b":1}`), "duplicate field"},

		{"no critical", `{"optional":{}}`, "type"},
		{"a null critical", `{"critical":null}`, "type"},
		{"critical as a string", `{"critical":"x"}`, "cannot unmarshal"},
		{"no type", with(`,"type":"atomic container signature"`, ``), "type"},
		{"another type", with("atomic container", "cosign container image"), "type"},
		{"a type in another letter case", with("atomic", "Atomic"), "type"},
		{"a type as a list", with(`"atomic container signature"`, `["atomic container signature"]`), "cannot unmarshal"},
		{"no reference", with(`"docker-reference":"registry.example.com/team/app"`, ``), "docker-reference"},
		{"an empty reference", with("registry.example.com/team/app", ""), "docker-reference"},
		{"a null reference", with(`"registry.example.com/team/app"`, "null"), "docker-reference"},
		{"a reference in upper case", with("team/app", "team/App"), "docker-reference"},
		{"a reference that is a pattern", with("team/app", "team/*"), "docker-reference"},
		{"a reference that is an id", with("registry.example.com/team/app", digest), "docker-reference"},
		{"a reference with another digest", with("team/app", "team/app@sha256:"+strings.Repeat("0", 64)), "another digest"},
		{"no digest", with(`"docker-manifest-digest":"`+digest+`"`, ``), "docker-manifest-digest"},
		{"a digest that is short", with(digest, digest[:70]), "docker-manifest-digest"},
		{"a digest in upper case", with(digest, "sha256:"+strings.ToUpper(digest[7:])), "docker-manifest-digest"},
		{"a digest as a list", with(`"`+digest+`"`, `["`+digest+`"]`), "cannot unmarshal"},

		{"optional as a list", with(`{}}`, `[]}`), "cannot unmarshal"},
		{"a timestamp as a string", optional(`"timestamp":"1767225600"`), "timestamp"},
		{"a null timestamp", optional(`"timestamp":null`), "timestamp"},
		{"a timestamp with a fraction", optional(`"timestamp":1767225600.5`), "timestamp"},
		{"a negative timestamp", optional(`"timestamp":-1`), "timestamp"},
		{"a timestamp after the year 9999", optional(`"timestamp":253402300800`), "timestamp"},
		{"a timestamp over 64 bits", optional(`"timestamp":18446744075476777216`), "timestamp"},
		{"a timestamp over any number", optional(`"timestamp":1e999`), "cannot unmarshal"},
		{"an expiry as a number", optional(`"horkos.dev/expires":1767225600`), "horkos.dev/expires"},
		{"a null expiry", optional(`"horkos.dev/expires":null`), "horkos.dev/expires"},
		{"an empty expiry", optional(`"horkos.dev/expires":""`), "horkos.dev/expires"},
		{"an expiry without time", optional(`"horkos.dev/expires":"2030-01-01"`), "horkos.dev/expires"},
		{"an expiry without zone", optional(`"horkos.dev/expires":"2030-01-01T00:00:00"`), "horkos.dev/expires"},
		{"an expiry that would read as none", optional(`"horkos.dev/expires":"0001-01-01T00:00:00Z"`), "horkos.dev/expires"},
		{"an expiry on no day", optional(`"horkos.dev/expires":"2030-02-30T00:00:00Z"`), "horkos.dev/expires"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.payload == good {
				t.Fatal("the test changes nothing")
			}
			got, err := decodePayload([]byte(tt.payload))
			if err == nil || got != (Statement{}) {
				t.Fatalf("got %+v, %v; want an error", got, err)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
		})
	}
}

func TestANewPayloadSaysWhatItWasMadeFor(t *testing.T) {
	identity := image.Identity{Repository: "docker.io/library/nginx", Digest: digest}
	at := time.Date(2026, 1, 1, 1, 0, 0, 999, time.FixedZone("", 3600))
	data, err := NewPayload(identity, at, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"critical":{"identity":{"docker-reference":"docker.io/library/nginx"},"image":{"docker-manifest-digest":"` + digest +
		`"},"type":"atomic container signature"},"optional":{"timestamp":1767225600}}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
	expires := at.Add(24 * time.Hour)
	if data, err = NewPayload(identity, at, expires); err != nil {
		t.Fatal(err)
	}
	got, err := decodePayload(data)
	if err != nil || got != (Statement{Identity: identity, Timestamp: at.Truncate(time.Second).UTC(), Expires: expires.Truncate(time.Second).UTC()}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestANewPayloadThatNobodyWouldAcceptIsRefused(t *testing.T) {
	at := time.Unix(1767225600, 0)
	good := image.Identity{Repository: "docker.io/library/nginx", Digest: digest}
	tests := []struct {
		name        string
		identity    image.Identity
		at, expires time.Time
	}{
		{"no identity", image.Identity{}, at, time.Time{}},
		{"no digest", image.Identity{Repository: good.Repository}, at, time.Time{}},
		{"a repository not in its normal form", image.Identity{Repository: "nginx", Digest: digest}, at, time.Time{}},
		{"a repository with a tag", image.Identity{Repository: good.Repository + ":1", Digest: digest}, at, time.Time{}},
		{"no timestamp", good, time.Time{}, time.Time{}},
		{"an expiry before 1970", good, at, time.Unix(-1, 0)},
		{"an expiry after the year 9999", good, at, time.Unix(lastSecond+1, 0)},
	}
	for _, tt := range tests {
		if data, err := NewPayload(tt.identity, tt.at, tt.expires); err == nil {
			t.Errorf("%s: %s", tt.name, data)
		}
	}
}

// What is accepted must read the same to a reader that is lax, as encoding/json is, and
// what it says can be said again.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{
		good, optional(`"timestamp":1767225600,"horkos.dev/expires":"2030-01-01T00:00:00Z","a":[{"b":null}]`), with("team/app", "team/app:v1"),
		with(`"type"`, `"Type":"x","type"`), with(`{}}`, `null}`), `{"critical":null}`, `{"critical":{"identity":null,"image":null}}`, `[[`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodePayload(data)
		if err != nil {
			if got != (Statement{}) {
				t.Errorf("an error and a statement: %+v", got)
			}
			return
		}
		var lax payload
		if err := json.Unmarshal(data, &lax); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if same, err := lax.statement(); err != nil || same.Identity != got.Identity || same.Expires != got.Expires {
			t.Errorf("encoding/json reads %+v, %v; not %+v", same, err, got)
		}
		if got.Timestamp.IsZero() {
			return
		}
		again, err := NewPayload(got.Identity, got.Timestamp, got.Expires)
		if err != nil {
			t.Fatalf("%+v cannot be said again: %v", got, err)
		}
		if same, err := decodePayload(again); err != nil || same.Identity != got.Identity || same.Timestamp != got.Timestamp {
			t.Errorf("said again as %+v, %v; not %+v", same, err, got)
		}
	})
}
