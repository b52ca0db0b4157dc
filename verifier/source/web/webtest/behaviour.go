package webtest

import (
	"compress/gzip"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/horkos/horkos/crds"
	"github.com/horkos/horkos/verifier/attestation"
	"github.com/horkos/horkos/verifier/image"
)

// perObject is how many attestations Object writes into one ImageAttestation.
const perObject = crds.MaxAttestations

// Behaviour answers a request.
type Behaviour func(*Exchange)

// Honest serves what it holds, and 404.
func Honest() Behaviour {
	return func(x *Exchange) {
		if x.body == nil {
			http.NotFound(x.W, x.R)
			return
		}
		_, _ = x.W.Write(x.body)
	}
}

// Late is honest after a while, if anybody is still there.
func Late(after time.Duration) Behaviour {
	return func(x *Exchange) {
		timer := time.NewTimer(after)
		defer timer.Stop()
		if wait(x, timer.C) {
			Honest()(x)
		}
	}
}

// Slow is honest, a piece of so many bytes at a time, with a pause after each.
func Slow(piece int, pause time.Duration) Behaviour {
	return func(x *Exchange) {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		x.W.Header().Set("Content-Length", strconv.Itoa(len(x.body)))
		for rest := x.body; len(rest) > 0; {
			n := min(piece, len(rest))
			if !x.send(rest[:n]) {
				return
			}
			rest = rest[n:]
			if !wait(x, tick.C) {
				return
			}
		}
	}
}

// Hangs says nothing until Release, and is honest then.
func Hangs() Behaviour {
	return func(x *Exchange) {
		if wait(x, x.released) {
			Honest()(x)
		}
	}
}

// HangsHalfway sends half of what it holds and the rest after Release.
func HangsHalfway() Behaviour {
	return func(x *Exchange) {
		x.W.Header().Set("Content-Length", strconv.Itoa(len(x.body)))
		half := len(x.body) / 2
		if x.send(x.body[:half]) && wait(x, x.released) {
			x.send(x.body[half:])
		}
	}
}

// Status answers a status with a page beside it.
func Status(code int) Behaviour {
	return func(x *Exchange) {
		x.W.WriteHeader(code)
		_, _ = x.W.Write([]byte("<html>\x1b[31msecret page</html>\n"))
	}
}

// Redirects sends elsewhere: to a path of its own or another server. It sends there whoever
// did not come from there.
func Redirects(to string) Behaviour {
	return func(x *Exchange) {
		if strings.HasSuffix(to, x.R.URL.Path) {
			Honest()(x)
			return
		}
		http.Redirect(x.W, x.R, to, http.StatusFound)
	}
}

// RedirectsTimes redirects so many times to itself and is honest then.
func RedirectsTimes(n int) Behaviour {
	return func(x *Exchange) {
		so, _ := strconv.Atoi(x.R.URL.Query().Get("n"))
		if so == n {
			Honest()(x)
			return
		}
		http.Redirect(x.W, x.R, x.R.URL.Path+"?n="+strconv.Itoa(so+1), http.StatusFound)
	}
}

// Says answers 200 with a body of any kind.
func Says(body []byte) Behaviour {
	return func(x *Exchange) {
		x.W.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = x.W.Write(body)
	}
}

// Garbage answers what is neither JSON nor YAML.
func Garbage() Behaviour { return Says([]byte("\x00\xff{]<html>\x1b[31mnot json")) }

// Truncated answers the first half of what it holds as if it were all.
func Truncated() Behaviour {
	return func(x *Exchange) { Says(x.body[:len(x.body)/2])(x) }
}

// CutOff promises all that it holds, and breaks off in the middle.
func CutOff() Behaviour {
	return func(x *Exchange) {
		x.W.Header().Set("Content-Length", strconv.Itoa(len(x.body)))
		x.send(x.body[:len(x.body)/2])
		panic(http.ErrAbortHandler)
	}
}

// NotHTTP answers bytes that are no answer of HTTP, and closes the connection.
func NotHTTP(answer []byte) Behaviour {
	return func(x *Exchange) {
		conn, _, err := http.NewResponseController(x.W).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = conn.Write(answer)
	}
}

// Endless answers blanks without end.
func Endless() Behaviour {
	return func(x *Exchange) {
		blanks := []byte(strings.Repeat(" ", 64<<10))
		for x.send(blanks) {
		}
	}
}

// GzipBomb answers a few bytes of gzip that stand for a gigabyte.
func GzipBomb() Behaviour {
	return func(x *Exchange) {
		x.W.Header().Set("Content-Encoding", "gzip")
		bomb := gzip.NewWriter(x.W)
		blanks := make([]byte, 1<<20)
		for range 1024 {
			if _, err := bomb.Write(blanks); err != nil || x.gone() {
				return
			}
		}
		_ = bomb.Close()
	}
}

// LargeHeader answers a header of so many bytes, and what it holds.
func LargeHeader(bytes int) Behaviour {
	return func(x *Exchange) {
		x.W.Header().Set("X-Large", strings.Repeat("a", bytes))
		Honest()(x)
	}
}

// Repeats answers what it holds so many times over, as documents of YAML are.
func Repeats(times int) Behaviour {
	return func(x *Exchange) {
		document := append([]byte("\n---\n"), x.body...)
		for range times {
			if !x.send(document) {
				return
			}
		}
	}
}

// Forges answers n attestations of an image whose signatures are garbage, whatever is asked.
// With an image that is not the one that is asked, the answer is about another one.
func Forges(id image.Identity, n int) Behaviour { return Says(Object(id, n)) }

// send sends bytes at once; false when nobody is there any more.
func (x *Exchange) send(data []byte) bool {
	if x.gone() {
		return false
	}
	if _, err := x.W.Write(data); err != nil {
		return false
	}
	return http.NewResponseController(x.W).Flush() == nil
}

func (x *Exchange) gone() bool {
	select {
	case <-x.ended:
		return true
	case <-x.R.Context().Done():
		return true
	default:
		return false
	}
}

// payloadOf is base64 of a statement about an image, such as an attester signs.
func payloadOf(id image.Identity) string {
	data, err := attestation.NewPayload(id, time.Unix(1_700_000_000, 0), time.Time{})
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}
