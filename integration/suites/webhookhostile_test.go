package suites

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// inTime is how long a well-formed review may take while the webhook is under siege, and who
	// lays it takes the same two cores. The API server waits for ten seconds.
	inTime = 2 * time.Second
	// maxResident is what the webhook may ever take, in KiB: its pod is killed at 256 MiB.
	maxResident = 200 << 10
)

// siege is a webhook that is asked well-formed reviews all the time, from 127.0.0.1, while others
// do to it what they can from other addresses.
type siege struct {
	*reviewed
	roots *x509.CertPool

	mu     sync.Mutex
	worst  time.Duration // of the well-formed reviews since the last look
	posted int
	failed []string
}

// besiege starts the webhook: unattested images are denied in namespace default, and every
// image is allowed in others.
func besiege(t *testing.T) *siege {
	t.Helper()
	s := &siege{reviewed: review(t), roots: x509.NewCertPool()}
	s.kubectl(kritisPolicies(s.release), "apply", "-f", "-")
	s.eventually("there is a bundle", func() error {
		bundle := s.kubectl("", "get", "validatingwebhookconfiguration", "horkos", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
		text, err := base64.StdEncoding.DecodeString(bundle)
		if err == nil && !s.roots.AppendCertsFromPEM(text) {
			err = errNotYet
		}
		return err
	})
	kept := s.client("127.0.0.1")
	s.eventually("the policies are in force", func() error { return s.wellFormed(kept, "default", false, 0) })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.witness(ctx, kept) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return s
}

// client is one that comes from an address of this machine.
func (s *siege) client(from string, change ...func(*http.Transport)) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true, DialContext: dialer(from).DialContext}
	for _, do := range change {
		do(tr)
	}
	s.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func dialer(from string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
}

// oneByOne has a client speak HTTP/1.1.
func oneByOne(tr *http.Transport) {
	tr.ForceAttemptHTTP2 = false
	tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
}

// dial is a connection over TLS that speaks HTTP/1.1, to do with what one likes.
func (s *siege) dial(from string) (*tls.Conn, error) {
	return tls.DialWithDialer(dialer(from), "tcp", s.address, &tls.Config{RootCAs: s.roots, NextProtos: []string{"http/1.1"}})
}

// witness asks well-formed reviews on a connection that is kept, and on new ones.
func (s *siege) witness(ctx context.Context, kept *http.Client) {
	anew := s.client("127.0.0.1", func(tr *http.Transport) { tr.DisableKeepAlives = true })
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		client, namespace := kept, "default"
		if n%4 == 3 {
			client = anew
		}
		if n%2 == 1 {
			namespace = "elsewhere"
		}
		began := time.Now()
		err := s.wellFormed(client, namespace, namespace != "default", 0)
		took := time.Since(began)
		s.mu.Lock()
		s.posted++
		s.worst = max(s.worst, took)
		if err != nil {
			s.failed = append(s.failed, err.Error())
		} else if took > inTime {
			s.failed = append(s.failed, "it took "+took.String())
		}
		s.mu.Unlock()
	}
}

// wellFormed asks a review that is right, with some space behind it.
func (s *siege) wellFormed(c *http.Client, namespace string, allowed bool, space int) error {
	status, text, err := s.post(c, append(reviewOfPod(namespace, "alpine:3.11"), bytes.Repeat([]byte(" "), space)...))
	if err != nil {
		return err
	}
	var got reviewAnswer
	if err := json.Unmarshal(text, &got); err != nil || status != http.StatusOK || got.Response.UID != "u1" || got.Response.Allowed != allowed {
		return fmt.Errorf("a well-formed review is answered %d %.200s", status, text)
	}
	return nil
}

// post posts a body, as JSON, and gives what is answered.
func (s *siege) post(c *http.Client, body []byte, change ...func(*http.Request)) (int, []byte, error) {
	request, err := http.NewRequest(http.MethodPost, "https://"+s.address+"/?timeout=10s", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	for _, do := range change {
		do(request)
	}
	response, err := c.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, text, err
}

// during is a part of the siege; afterwards it looks how the webhook is and what the others got.
func (s *siege) during(name string, do func(t *testing.T)) {
	s.Run(name, func(t *testing.T) {
		do(t)
		s.unharmed(t)
	})
}

func (s *siege) unharmed(t *testing.T) {
	t.Helper()
	if err := s.wellFormed(s.client("127.0.0.1"), "default", false, 0); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	s.mu.Lock()
	posted, worst, failed := s.posted, s.worst, s.failed
	s.posted, s.worst, s.failed = 0, 0, nil
	s.mu.Unlock()
	now, peak := s.memory(t)
	t.Logf("%d well-formed reviews beside it, at worst in %v; VmRSS %d MiB, VmHWM %d MiB", posted, worst.Round(time.Millisecond), now>>10, peak>>10)
	if len(failed) > 0 {
		t.Errorf("%d of %d well-formed reviews beside it failed: %q", len(failed), posted, failed[:min(len(failed), 3)])
	}
}

// memory is what the webhook takes now, and took at most, in KiB.
func (s *siege) memory(t *testing.T) (now, peak int) {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/status")
	if err != nil {
		t.Fatalf("the webhook does not live: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			now = n
		case "VmHWM":
			peak = n
		}
	}
	if now == 0 || peak == 0 {
		t.Fatal("the webhook does not live")
	}
	return now, peak
}

// metric is what the webhook says of itself; below zero where it says nothing.
func (s *siege) metric(t *testing.T, name string) float64 {
	t.Helper()
	response, err := http.Get("http://" + s.health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, is := strings.CutPrefix(line, name+" "); is {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return -1
}

// spoil is a review of a pod in namespace default, whose image nobody attested, with a part
// of it another.
func spoil(old, with string) string {
	text := string(reviewOfPod("default", "alpine:3.11"))
	if !strings.Contains(text, old) {
		panic(old)
	}
	return strings.Replace(text, old, with, 1)
}

const (
	denied = http.StatusOK // a review is answered, and it is no

	wholeObject     = `"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"cart","namespace":"default"},"spec":{"containers":[{"image":"alpine:3.11","name":"c0"}]}}`
	wholeContainers = `[{"image":"alpine:3.11","name":"c0"}]`
	wholeSpec       = `{"containers":` + wholeContainers + `}`
)

// hostile are bodies, and what is answered.
func hostile() map[string]struct {
	body string
	want int
} {
	type m = map[string]struct {
		body string
		want int
	}
	plain := spoil("", "")
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	many := func(n int, element func(i int) string) string {
		var all []string
		for i := range n {
			all = append(all, element(i))
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	return m{
		"nothing":                        {"", 400},
		"null":                           {"null", 400},
		"a null request":                 {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`, 400},
		"a null uid":                     {spoil(`"uid":"u1"`, `"uid":null`), 400},
		"no uid":                         {spoil(`"uid":"u1"`, `"x":1`), 400},
		"a uid of 1 MB":                  {spoil(`"uid":"u1"`, `"uid":"`+strings.Repeat("u", 1<<20)+`"`), 400},
		"a null object":                  {spoil(wholeObject, `"object":null`), denied},
		"no object":                      {spoil(wholeObject, `"objects":{}`), denied},
		"null metadata":                  {spoil(`{"name":"cart","namespace":"default"}`, `null`), denied},
		"a null spec":                    {spoil(wholeSpec, `null`), denied},
		"null containers":                {spoil(wholeContainers, `null`), denied},
		"containers of null":             {spoil(wholeContainers, `[null,null]`), denied},
		"a null image":                   {spoil(`"image":"alpine:3.11"`, `"image":null`), denied},
		"a null kind":                    {spoil(`"kind":{"group":"","kind":"Pod","version":"v1"}`, `"kind":null`), denied},
		"a null resource":                {spoil(`"resource":{"group":"","resource":"pods","version":"v1"}`, `"resource":null`), denied},
		"an old object of null":          {strings.Replace(spoil(`"CREATE"`, `"UPDATE"`), `"object"`, `"oldObject":null,"object"`, 1), denied},
		"an unknown kind":                {spoil(`"kind":"Pod","version"`, `"kind":"Pot","version"`), denied},
		"an unknown resource":            {spoil(`"resource":"pods"`, `"resource":"pots"`), denied},
		"an unknown operation":           {spoil(`"CREATE"`, `"LET"`), denied},
		"an operation in small letters":  {spoil(`"CREATE"`, `"delete"`), denied},
		"v1beta1":                        {spoil("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), denied},
		"another group":                  {spoil("admission.k8s.io/v1", "v1"), denied},
		"the object twice":               {spoil(`"object":`, `"object":{},"object":`), denied},
		"the image twice":                {spoil(`"image":`, `"image":"good","image":`), denied},
		"the uid twice":                  {spoil(`"uid":"u1"`, `"uid":"u0","uid":"u1"`), denied},
		"one key 500,000 times":          {spoil(`"uid":`, strings.Repeat(`"name":"x",`, 500_000)+`"uid":`), denied},
		"bytes that are no text":         {spoil("alpine", "\xff\xfe\x80alpine"), denied},
		"bytes that are no text, in uid": {spoil(`"uid":"u1"`, "\"uid\":\"\xff\xc0\""), denied},
		"half a surrogate":               {spoil("alpine", `\ud800alpine`), denied},
		"keys in other letters":          {spoil(`"containers"`, `"Containers"`), denied},
		"the uid in other letters":       {spoil(`"uid"`, `"UID"`), 400},
		"an answer in place of it":       {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u1","allowed":true}}`, 400},
		"an answer beside it":            {spoil(`"request":`, `"response":{"uid":"u1","allowed":true},"request":`), denied},
		"garbage behind it":              {plain + "x", 400},
		"two reviews":                    {plain + plain, 400},
		"a list of reviews":              {"[" + plain + "]", 400},
		"half of it":                     {plain[:len(plain)/2], 400},
		"YAML":                           {"apiVersion: admission.k8s.io/v1\nkind: AdmissionReview\n", 400},
		"UTF-16":                         {"\xff\xfe{\x00}\x00", 400},
		"100,000 deep":                   {deep(100_000), 400},
		"100,000 deep and open":          {strings.Repeat(`{"request":`, 100_000), 400},
		"100,000 deep in the object":     {spoil(`"spec":`, `"x":`+deep(100_000)+`,"spec":`), 400},
		"9,000 deep in the object":       {spoil(`"spec":`, `"x":`+deep(9_000)+`,"spec":`), denied},
		"9,000 deep for containers":      {spoil(wholeContainers, deep(9_000)), denied},
		"100,000 images":                 {spoil(wholeContainers, many(100_000, func(i int) string { return fmt.Sprintf(`{"image":"i%d"}`, i) })), denied},
		"1,000 images":                   {spoil(wholeContainers, many(1_000, func(i int) string { return fmt.Sprintf(`{"image":"i%d"}`, i) })), denied},
		"100,000 times one image":        {spoil(wholeContainers, many(100_000, func(int) string { return `{"image":"alpine"}` })), denied},
		"1,000,000 empty containers":     {spoil(wholeContainers, many(1_000_000, func(int) string { return `{}` })), denied},
		"100,000 volumes":                {spoil(`"containers":`, `"volumes":`+many(100_000, func(i int) string { return fmt.Sprintf(`{"image":{"reference":"i%d"}}`, i) })+`,"containers":`), denied},
		"an image of 7 MB":               {spoil("alpine:3.11", strings.Repeat("a", 7<<20)), denied},
		"a namespace of 7 MB":            {spoil(`"namespace":"default","object"`, `"namespace":"`+strings.Repeat("a", 7<<20)+`","object"`), denied},
		"a user of 7 MB":                 {spoil(`"alice"`, `"`+strings.Repeat("a", 7<<20)+`"`), denied},
		"100,000 annotations":            {spoil(`"metadata":{`, `"metadata":{"annotations":{`+strings.Trim(many(100_000, func(i int) string { return fmt.Sprintf(`"a%d":""`, i) }), "[]")+`},`), denied},
		"numbers without end":            {spoil(`"spec":`, `"x":`+strings.Repeat("9", 1<<20)+`,"y":1e999999999,"spec":`), denied},
		"7 MB of spaces":                 {plain + strings.Repeat(" ", 7<<20), denied},
		"10 MB":                          {plain + strings.Repeat(" ", 10<<20), 413},
	}
}

// TestUnderSiegeNothingIsLetThroughAndOthersAreAnswered: whatever is sent to the real webhook,
// and however, it answers no with a reason or not at all, stays small, and answers the API
// server beside it within a second.
func TestUnderSiegeNothingIsLetThroughAndOthersAreAnswered(t *testing.T) {
	s := besiege(t)
	began := time.Now()
	slow := s.crawl()

	for name, c := range map[string]*http.Client{"HTTP/2": s.client("127.0.0.2"), "HTTP/1.1": s.client("127.0.0.2", oneByOne)} {
		s.during("hostile bodies over "+name, func(t *testing.T) {
			for name, tt := range hostile() {
				status, text, err := s.post(c, []byte(tt.body))
				if err != nil && tt.want == http.StatusRequestEntityTooLarge {
					continue // the connection is closed on who sends on
				}
				if err != nil || status != tt.want || letThrough(text) || (status == denied && !says(text)) {
					t.Errorf("%s: %d %.300s %v, want %d", name, status, text, err, tt.want)
				}
			}
		})
	}
	s.during("requests that are none", s.otherRequests)
	s.during("lengths that lie", s.lies)
	s.during("other protocols", s.otherProtocols)
	s.during("enormous headers", s.headers)
	s.during("1,000 connections at once", s.crowd)
	s.during("many streams", s.streams)
	s.during("large reviews at once", s.large)
	s.during("large reviews that do not end", s.unfinished)
	s.together()
	s.during("those who are slow", func(t *testing.T) { s.cut(t, slow) })

	if n := s.metric(t, "horkos_webhook_panics_total"); n != 0 {
		t.Errorf("the webhook panicked %v times", n)
	}
	_, peak := s.memory(t)
	t.Logf("the siege lasted %v; VmHWM of the webhook is %d MiB", time.Since(began).Round(time.Millisecond), peak>>10)
	if peak > maxResident {
		t.Errorf("the webhook took %d MiB, want %d at most", peak>>10, maxResident>>10)
	}
}

// together has several addresses take what they can: whoever has some pods has as many.
func (s *siege) together() {
	const begin = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8000000\r\n\r\n"
	for _, tt := range []struct {
		name  string
		each  int // connections of an address
		bytes int // sent on each, of a body that does not end; 0: no request
	}{
		{"connections", 384, 0},
		{"requests", 384, 100},
		{"bytes, in small bodies", 200, 200 << 10},
		{"bytes, in large bodies", 4, 7 << 20},
	} {
		s.during("several addresses take all "+tt.name, func(t *testing.T) {
			var mu sync.Mutex
			var open []net.Conn
			var refused error // the last of them
			defer func() {
				for _, c := range open {
					c.Close()
				}
				s.eventually("they are gone", func() error {
					if n := s.metric(t, "horkos_webhook_connections"); n > 200 {
						return fmt.Errorf("%v are open", n)
					}
					return nil
				})
			}()
			body := strings.Repeat(" ", tt.bytes)
			var running sync.WaitGroup
			for worker := range 16 {
				from := "127.0.1." + strconv.Itoa(1+worker%4)
				running.Go(func() {
					for range tt.each / 4 {
						c, err := s.hold(from, begin+body, tt.bytes > 0)
						mu.Lock()
						if err != nil {
							refused = err
						} else {
							open = append(open, c)
						}
						mu.Unlock()
					}
				})
			}
			running.Wait()
			t.Logf("%d of %d connections of 4 addresses are begun; of the others: %v", len(open), 4*tt.each, refused)
			if len(open) < tt.each {
				t.Error("that is no siege")
			}
			s.unharmed(t)
			anew := s.client("127.0.0.1", func(tr *http.Transport) { tr.DisableKeepAlives = true })
			for _, size := range []int{0, 20 << 10, 1 << 20} {
				if err := s.wellFormed(anew, "default", false, size); err != nil {
					t.Errorf("a review of %d bytes: %v", size, err)
				}
			}
		})
	}
}

// hold begins a request and does not end it; or it only connects.
func (s *siege) hold(from, text string, asks bool) (net.Conn, error) {
	if !asks {
		c, err := dialer(from).Dial("tcp", s.address)
		return c, err
	}
	c, err := s.dial(from)
	if err != nil {
		return nil, err
	}
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(c, text)
	return c, nil
}

// letThrough tells whether an answer, read as leniently as one can, would admit.
func letThrough(text []byte) bool {
	return bytes.Contains(bytes.ReplaceAll(bytes.ToLower(text), []byte(" "), nil), []byte(`"allowed":true`))
}

// says tells whether it is the answer to a review, and says why not.
func says(text []byte) bool {
	var got reviewAnswer
	err := json.Unmarshal(text, &got)
	return err == nil && got.Kind == "AdmissionReview" && got.APIVersion == "admission.k8s.io/v1" && got.Response.UID != "" &&
		!got.Response.Allowed && got.Response.Status != nil && got.Response.Status.Message != ""
}

func (s *siege) otherRequests(t *testing.T) {
	c := s.client("127.0.0.2")
	good := reviewOfPod("elsewhere", "alpine:3.11") // would be allowed
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	method := func(name string) func(*http.Request) { return func(r *http.Request) { r.Method = name } }
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(good)
	_ = w.Close()
	for name, tt := range map[string]struct {
		body   []byte
		change func(*http.Request)
		want   int
	}{
		"GET":             {nil, method(http.MethodGet), 405},
		"GET with a body": {good, method(http.MethodGet), 405},
		"PUT":             {good, method(http.MethodPut), 405},
		"OPTIONS":         {nil, method(http.MethodOptions), 405},
		"a made-up one":   {good, method("LET"), 405},
		"YAML":            {good, header("Content-Type", "application/yaml"), 415},
		"a form":          {good, header("Content-Type", "application/x-www-form-urlencoded"), 415},
		"no type":         {good, header("Content-Type", ""), 415},
		"protobuf":        {good, header("Content-Type", "application/vnd.kubernetes.protobuf"), 415},
		"gzip":            {packed.Bytes(), header("Content-Encoding", "gzip"), 400},
		"gzip, untold":    {packed.Bytes(), func(*http.Request) {}, 400},
	} {
		status, text, err := s.post(c, tt.body, tt.change)
		if err != nil || status != tt.want || letThrough(text) {
			t.Errorf("%s: %d %.200s %v, want %d", name, status, text, err, tt.want)
		}
	}
}

// raw sends bytes on a connection of their own and gives all that is answered.
func (s *siege) raw(t *testing.T, text string) string {
	t.Helper()
	c, err := s.dial("127.0.0.2")
	if err != nil {
		t.Error(err)
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	read := make(chan string, 1)
	go func() {
		answer, _ := io.ReadAll(c)
		read <- string(answer)
	}()
	_, _ = io.WriteString(c, text) // it may be refused halfway
	_ = c.CloseWrite()
	return <-read
}

func (s *siege) lies(t *testing.T) {
	const begin = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	plain := spoil("", "")
	passes := string(reviewOfPod("elsewhere", "alpine:3.11"))
	long := strings.Repeat(" ", 10<<20)
	for name, tt := range map[string]struct{ text, want string }{
		"more than it says":         {fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s%s", begin, len(plain)-10, plain, long), "HTTP/1.1 400 "},
		"less than it says":         {fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", begin, len(passes)+10, passes), "HTTP/1.1 400 "},
		"8 MB are said, none comes": {fmt.Sprintf("%sContent-Length: %d\r\n\r\n", begin, 8<<20), "HTTP/1.1 400 "},
		"1 TB is said":              {fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", begin, 1<<40, passes), "HTTP/1.1 413 "},
		"less than nothing":         {begin + "Content-Length: -1\r\n\r\n" + passes, "HTTP/1.1 400 "},
		"more than can be counted":  {begin + "Content-Length: 99999999999999999999\r\n\r\n" + passes, "HTTP/1.1 400 "},
		"two lengths":               {fmt.Sprintf("%sContent-Length: 5\r\nContent-Length: %d\r\n\r\n%s", begin, len(passes), passes), "HTTP/1.1 400 "},
		"10 MB in chunks":           {fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", begin, len(long), long), "HTTP/1.1 413 "},
		"a chunk that does not end": {begin + "Transfer-Encoding: chunked\r\n\r\nfff\r\n" + passes, "HTTP/1.1 400 "},
		"a chunk that is no number": {begin + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + passes, "HTTP/1.1 400 "},
		"an encoding nobody knows":  {begin + "Transfer-Encoding: gzip\r\n\r\n" + passes, "HTTP/1.1 501 "},
		"no length":                 {begin + "\r\n" + passes, "HTTP/1.1 400 "},
	} {
		got := s.raw(t, tt.text)
		cutShort := got == "" && len(tt.text) > 1<<20 // the connection is reset on who sends on
		if letThrough([]byte(got)) || (!strings.HasPrefix(got, tt.want) && !cutShort) {
			t.Errorf("%s: %.200q, want %s", name, got, tt.want)
		}
	}
}

func (s *siege) otherProtocols(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.0": tls.VersionTLS10, "TLS 1.1": tls.VersionTLS11, "TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		c, err := tls.DialWithDialer(dialer("127.0.0.2"), "tcp", s.address, &tls.Config{RootCAs: s.roots, MinVersion: version, MaxVersion: version})
		if err == nil {
			c.Close()
		}
		if want := version >= tls.VersionTLS12; want != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"plain HTTP":   "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n",
		"plain HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"nonsense":     strings.Repeat("\x16\x03\x01\xff\xff", 10_000),
	} {
		c, err := dialer("127.0.0.2").Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(6 * time.Second))
		_, _ = io.WriteString(c, text)
		answer, err := io.ReadAll(c)
		c.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(answer), " 200 ") || (name == "plain HTTP" && !strings.HasPrefix(string(answer), "HTTP/1.0 400 ")) {
			t.Errorf("%s: %.100q %v", name, answer, err)
		}
	}
}

func (s *siege) headers(t *testing.T) {
	good := reviewOfPod("elsewhere", "alpine:3.11")
	for protocol, c := range map[string]*http.Client{"HTTP/2": s.client("127.0.0.2"), "HTTP/1.1": s.client("127.0.0.2", oneByOne)} {
		for name, change := range map[string]func(*http.Request){
			"one of 4 MB":       func(r *http.Request) { r.Header.Set("X", strings.Repeat("x", 4<<20)) },
			"100,000 of them":   func(r *http.Request) { r.Header["X"] = slices.Repeat([]string{"x"}, 100_000) },
			"a path of 1 MB":    func(r *http.Request) { r.URL.Path = "/" + strings.Repeat("x", 1<<20) },
			"a timeout of 1 MB": func(r *http.Request) { r.URL.RawQuery = "timeout=" + strings.Repeat("9", 1<<20) + "s" },
		} {
			status, text, err := s.post(c, good, change)
			if err == nil && (status != http.StatusRequestHeaderFieldsTooLarge || letThrough(text)) { // or the connection ends
				t.Errorf("%s over %s: %d %.200s", name, protocol, status, text)
			}
		}
	}
}

// crowd has one address connect a thousand times, and shake hands.
func (s *siege) crowd(t *testing.T) {
	var mu sync.Mutex
	var running sync.WaitGroup
	var open []net.Conn
	for range 50 {
		running.Go(func() {
			for range 20 {
				if c, err := s.dial("127.0.0.3"); err == nil {
					mu.Lock()
					open = append(open, c)
					mu.Unlock()
				}
			}
		})
	}
	running.Wait()
	t.Logf("%d of 1,000 connections are let in", len(open))
	if len(open) == 0 || len(open) > 384 {
		t.Errorf("%d connections of one address", len(open))
	}
	s.unharmed(t)
	for _, c := range open {
		c.Close()
	}
}

// streams has one connection carry as many reviews at once as it may, and give up as many.
func (s *siege) streams(t *testing.T) {
	c := s.client("127.0.0.4", func(tr *http.Transport) { tr.MaxConnsPerHost = 1 })
	body := []byte(spoil("", ""))
	var running sync.WaitGroup
	for range 500 {
		running.Go(func() {
			status, text, err := s.post(c, body)
			if err != nil || letThrough(text) || (status != http.StatusOK && status != http.StatusTooManyRequests) {
				t.Errorf("%d %.100s %v", status, text, err)
			}
		})
	}
	running.Wait()
	for i := range 2_000 { // as in CVE-2023-44487
		running.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20)*100*time.Microsecond)
			defer cancel()
			_, text, _ := s.post(c, body, func(r *http.Request) { *r = *r.WithContext(ctx) })
			if letThrough(text) {
				t.Errorf("%.100s", text)
			}
		})
	}
	running.Wait()
}

// large has as much to be read at once as there is room for, and more.
func (s *siege) large(t *testing.T) {
	fill := func(element func(i int) string) string { // of 3.6 MB
		var all []string
		for i, n := 0, 0; n < 3_600_000; i++ {
			all = append(all, element(i))
			n += len(all[i]) + 1
		}
		return strings.Join(all, ",")
	}
	pad := strings.Repeat("a", 1000)
	for name, part := range map[string][2]string{
		"annotations":       {`"metadata":{`, `"metadata":{"annotations":{` + fill(func(i int) string { return fmt.Sprintf(`"a%d":"%s"`, i, pad) }) + `},`},
		"small numbers":     {`"spec":{`, `"spec":{"x":[` + fill(func(int) string { return "1" }) + `],`},
		"lists in lists":    {`"spec":{`, `"spec":{"x":[` + fill(func(int) string { return "[[]]" }) + `],`},
		"a container":       {`"name":"c0"`, `"name":"c0","args":[` + fill(func(int) string { return `"` + pad + `"` }) + `]`},
		"a volume":          {`"spec":{`, `"spec":{"volumes":[{"image":{"reference":"x","y":[` + fill(func(int) string { return `"` + pad + `"` }) + `]}}],`},
		"an image":          {`alpine:3.1`, strings.Repeat("a", 3_600_000)},
		"an image, escaped": {`alpine:3.1`, strings.Repeat(`\u0061`, 600_000)},
	} {
		object := strings.Replace(wholeObject, part[0], part[1], 1)
		old := strings.Replace(strings.Replace(object, "alpine:3.11", "alpine:3.10", 1), `1","name"`, `0","name"`, 1)
		body := []byte(strings.Replace(spoil(wholeObject, object+`,"oldObject":`+strings.TrimPrefix(old, `"object":`)), `"CREATE"`, `"UPDATE"`, 1))
		counts := make(map[int]int)
		var mu sync.Mutex
		var running sync.WaitGroup
		for i := range 12 {
			c := s.client("127.0.0."+strconv.Itoa(2+i%3), oneByOne)
			running.Go(func() {
				for range 2 {
					status, text, err := s.post(c, body)
					if letThrough(text) || (err == nil && status != denied && status != http.StatusTooManyRequests) {
						t.Errorf("%d %.100s", status, text)
					}
					mu.Lock()
					if counts[status]++; err != nil {
						counts[-1]++
					}
					mu.Unlock()
				}
			})
		}
		running.Wait()
		now, peak := s.memory(t)
		t.Logf("reviews of %d bytes, of %s, were answered, by status: %v; VmRSS %d MiB, VmHWM %d MiB", len(body), name, counts, now>>10, peak>>10)
	}
}

// unfinished has one address begin bodies, and not end them.
func (s *siege) unfinished(t *testing.T) {
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	part := strings.Repeat(" ", 7<<20)
	for range 8 {
		c, err := s.dial("127.0.0.3")
		if err != nil {
			t.Error(err)
			continue
		}
		open = append(open, c)
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", 8<<20, part)
	}
	s.unharmed(t)
	tick := time.NewTimer(time.Second)
	defer tick.Stop()
	<-tick.C // meanwhile others are answered, as is looked at next
}

// crawl has clients that do everything slowly, from the beginning of the siege to its end.
func (s *siege) crawl() (all []net.Conn) {
	s.Helper()
	for i := range 120 {
		var c net.Conn
		var err error
		if i%6 == 0 { // shakes no hands
			c, err = dialer("127.0.0.5").Dial("tcp", s.address)
		} else {
			c, err = s.dial("127.0.0.5")
		}
		if err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { c.Close() })
		all = append(all, c)
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		switch i % 6 {
		case 2: // half a header
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n")
		case 3: // half a body
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\nhalf")
		case 4: // chunks without end
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n")
		case 5: // many requests, no answer read
			_, _ = io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 2000))
		}
	}
	ctx, cancel := context.WithCancel(s.Context())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for i, c := range all {
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				switch i % 6 {
				case 2, 3:
					_, _ = io.WriteString(c, "x")
				case 4:
					_, _ = io.WriteString(c, "1\r\n \r\n")
				}
			}
		}
	})
	s.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return all
}

// cut waits until those who are slow are cut off. Who has an idle connection may keep it for
// 90 seconds, and whoever does not read an answer too.
func (s *siege) cut(t *testing.T, all []net.Conn) {
	limit := time.Now().Add(12 * time.Second)
	for i, c := range all {
		if i%6 == 1 || i%6 == 5 {
			continue
		}
		_ = c.SetReadDeadline(limit)
		text, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) || letThrough(text) {
			t.Errorf("client %d is not cut off: %.100q", i, text)
		}
	}
}
