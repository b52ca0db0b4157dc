package state

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestWhatIsSealedComesBackWhole(t *testing.T) {
	for _, body := range []string{"", "\n", "{}\n", "a\nb", strings.Repeat("x", 1<<20)} {
		got, err := Unseal(Seal(1, []byte(body)), 1)
		if err != nil || string(got) != body {
			t.Errorf("%.10q: got %.10q, %v", body, got, err)
		}
	}
}

// A kept copy of a node that ran before.
func TestTheSealIsTheOneThatWasWrittenBefore(t *testing.T) {
	const want = `{"version":1,"bytes":13,"sha256":"72094c8b2dcf0bfb4f1d7ef1e19f4be87352e3165051f0a9f28b3169215a5896"}` + "\n" + `{"files":[]}` + "\n"
	if got := string(Seal(1, []byte(`{"files":[]}`+"\n"))); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestASealedTextThatWasTouchedIsDamaged(t *testing.T) {
	good := Seal(7, []byte("the body of it\nand more\n"))
	for at := range good {
		if _, err := Unseal(good[:at], 7); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at byte %d: %v", at, err)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << bit
			if _, err := Unseal(bad, 7); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Errorf("bit %d of byte %d: %v", bit, at, err)
			}
		}
	}
	line, body, _ := bytes.Cut(good, []byte("\n"))
	for name, bad := range map[string]string{
		"nothing":           "",
		"a byte more":       string(good) + " ",
		"two of it":         string(good) + string(good),
		"a space before":    " " + string(good),
		"another spelling":  strings.Replace(string(line), `"bytes"`, `"Bytes"`, 1) + "\n" + string(body),
		"another length":    strings.Replace(string(line), `"bytes":24`, `"bytes":23`, 1) + "\n" + string(body),
		"something foreign": "apiVersion: v1\n",
	} {
		if _, err := Unseal([]byte(bad), 7); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASealOfAnotherVersionIsToldFromDamage(t *testing.T) {
	for _, version := range []int{1, 3} {
		_, err := Unseal(Seal(version, []byte("body")), 2)
		if !errors.Is(err, ErrVersion) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("unknown version %d, want 2", version)) {
			t.Errorf("version %d: %v", version, err)
		}
	}
	if _, err := Unseal([]byte(`{"version":9,"somehow":"else"}`+"\n"), 2); !errors.Is(err, ErrVersion) {
		t.Errorf("a header of a later form: %v", err)
	}
}

func FuzzUnseal(f *testing.F) {
	f.Add([]byte("{}\n"), 1)
	f.Add(Seal(1, []byte("body")), 1)
	f.Add(Seal(2, nil), 1)
	f.Add([]byte(`{"version":1,"bytes":0,"sha256":""}`), 1)
	f.Fuzz(func(t *testing.T, text []byte, version int) {
		body, err := Unseal(text, version)
		if err == nil && !bytes.Equal(Seal(version, body), text) {
			t.Fatalf("%q is not what is sealed", text)
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Fatal(err)
		}
		if back, err := Unseal(Seal(version, text), version); err != nil || !bytes.Equal(back, text) {
			t.Fatalf("%q, %v", back, err)
		}
	})
}
