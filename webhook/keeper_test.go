package webhook

import (
	"bytes"
	"crypto/x509"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestInThreeYearsNothingIsShownThatIsNotBelieved lets two replicas live for three years, with
// restarts, replicas that hear nothing for most of a day, Secrets that are deleted and
// manifests that are applied anew. API servers may be half an hour behind.
func TestInThreeYearsNothingIsShownThatIsNotBelieved(t *testing.T) {
	const behind = 30 * time.Minute
	chance := rand.New(rand.NewPCG(1, 2)) // the same each time
	w := newWorld(t)
	w.replica()
	w.replica()
	w.settle()
	w.bundles = w.bundles[1:] // nobody believes anything before
	servings, authorities := make(map[string]bool), make(map[string]bool)
	most, restarts, deletions, deaf := 0, 0, 0, 0
	lively := w.now
	for w.now.Before(start.AddDate(3, 0, 0)) {
		version := w.rv
		w.settle()
		if w.rv != version {
			lively = w.now.Add(2 * time.Hour)
		}
		w.believed(behind)
		m := w.holds()
		servings[m.serving.certificate.SerialNumber.String()] = true
		authorities[m.signer.certificate.SerialNumber.String()] = true
		most = max(most, len(m.bundle))
		if !m.bundle[0].Equal(m.signer.certificate) {
			t.Fatalf("%s: the first of the bundle does not sign", w.now)
		}
		for i, r := range w.replicas {
			if p := r.Problems(); len(p) > 0 && !r.deaf {
				t.Fatalf("%s: replica %d is not ready: %v", w.now, i, p)
			}
		}
		switch p := chance.Float64(); {
		case p < 0.008: // a pod is replaced
			restarts++
			i := chance.IntN(2)
			old := w.replicas[i]
			w.replicas = slices.Delete(w.replicas, i, i+1)
			old.deaf = true
			w.replica()
		case p < 0.014 && !slices.ContainsFunc(w.replicas, func(r *replica) bool { return r.deaf }):
			deaf++
			r := w.replicas[chance.IntN(2)]
			r.deaf = true
			back := w.now.Add(time.Duration(chance.IntN(20)+1) * time.Hour)
			for w.now.Before(back) {
				w.now = w.now.Add(time.Hour)
				w.settle()
				w.believed(behind)
			}
			r.deaf = false
			w.tell(r)
		case p < 0.017:
			deletions++
			w.secret = nil
			w.rv++
			w.changed()
		}
		if w.now.Before(lively) {
			w.now = w.now.Add(10 * time.Minute)
		} else {
			w.now = w.now.Add(12 * time.Hour)
		}
	}
	t.Logf("%d certificates, %d authorities, at most %d in the bundle; %d restarts, %d deletions, deaf %d times; %d writes",
		len(servings), len(authorities), most, restarts, deletions, deaf, w.writes)
	if len(servings) < 18 || len(authorities) < 4 || most < 2 || most > 5 || restarts == 0 || deletions == 0 || deaf == 0 {
		t.Error("that is not what three years bring")
	}
}

func TestCertificatesAreRenewedAtTwoThirdsOfTheirLife(t *testing.T) {
	const day = 24 * time.Hour
	w := newWorld(t)
	w.replica()
	w.settle()
	first := w.holds()
	if got := first.signer.certificate.NotAfter.Sub(w.now); got != 360*day {
		t.Errorf("an authority holds for %v", got)
	}
	if got := first.serving.certificate.NotAfter.Sub(w.now); got != 90*day {
		t.Errorf("a certificate holds for %v", got)
	}
	renewed := func(after time.Duration) (serving, signer bool) {
		w.now = start.Add(after)
		w.settle()
		now := w.holds()
		return !now.serving.same(first.serving), !now.signer.same(first.signer)
	}
	if serving, signer := renewed(60*day - time.Hour); serving || signer {
		t.Error("renewed before two thirds")
	}
	if serving, signer := renewed(65 * day); !serving || signer {
		t.Errorf("after two thirds and a twentieth: certificate %v, authority %v", serving, signer)
	}
	for days := time.Duration(66); days < 240; days++ {
		if _, signer := renewed(days * day); signer {
			t.Fatalf("the authority is renewed after %d days", days)
		}
	}
	before := w.holds().serving
	if _, signer := renewed(262 * day); !signer {
		t.Error("the authority is not renewed")
	}
	m := w.holds()
	if len(m.bundle) != 2 || issuerOf(m.serving.certificate, m.bundle).Equal(m.signer.certificate) {
		t.Error("a new authority signs at once, or has replaced the old")
	}
	w.now = w.now.Add(59 * time.Minute)
	w.settle()
	if m = w.holds(); m.serving.CheckSignatureFrom(m.signer) {
		t.Error("it signs before the overlap is over")
	}
	w.now = w.now.Add(2 * time.Minute)
	w.settle()
	if m = w.holds(); !m.serving.CheckSignatureFrom(m.signer) || m.serving.same(before) {
		t.Error("it does not sign after the overlap")
	}
	w.now = w.now.Add(23 * time.Hour)
	w.settle()
	if n := len(w.holds().bundle); n != 2 {
		t.Errorf("%d authorities within a day", n)
	}
	w.now = w.now.Add(2 * time.Hour)
	w.settle()
	if n := len(w.holds().bundle); n != 1 {
		t.Errorf("%d authorities after a day", n)
	}
	w.now = w.now.Add(10 * 365 * day)
	w.settle()
	w.bundles = w.bundles[len(w.bundles)-1:]
	w.believed(0)
}

// CheckSignatureFrom tells whether the other has signed.
func (p *pair) CheckSignatureFrom(other *pair) bool {
	return p.certificate.CheckSignatureFrom(other.certificate) == nil
}

func TestWhoeverComesFirstMakesTheSecretAndTheOtherTakesIt(t *testing.T) {
	w := newWorld(t)
	a, b := w.replica(), w.replica()
	w.onCreate = func() { // between the dry write of one and its real one
		if err := b.step(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := a.step(t.Context()); !errors.Is(err, errAgain) {
		t.Errorf("the second is told %v", err)
	}
	w.settle()
	if w.writes != 1 || !a.held.Load().same(b.held.Load()) || !a.held.Load().same(w.holds().serving) {
		t.Errorf("%d writes", w.writes)
	}
	if len(a.Problems())+len(b.Problems()) > 0 {
		t.Errorf("not ready: %v, %v", a.Problems(), b.Problems())
	}
	w.settle()
	if w.writes != 1 {
		t.Error("written again for nothing")
	}
	t.Run("and of two that renew at once, one", func(t *testing.T) {
		w.now = w.now.Add(70 * 24 * time.Hour)
		stale, _ := b.secret.get()
		if err := a.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = b.secret.Update(stale) // its watch lags
		if err := b.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.writes != 2 {
			t.Errorf("%d writes", w.writes)
		}
	})
}

func TestWhoWasBelievedStaysReadyWhileANewAuthorityIsMade(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	w.settle()
	w.now = w.now.Add(20 * time.Second) // its own authority is not a minute old either
	w.secret = nil
	w.rv++
	w.changed()
	w.settle()
	if n := len(w.holds().bundle); n != 2 {
		t.Fatalf("%d authorities, want the new one beside the old", n)
	}
	if p := r.Problems(); len(p) > 0 {
		t.Errorf("it is not ready any more: %v", p)
	}
	fresh := w.replica()
	w.settle()
	if len(fresh.Problems()) == 0 {
		t.Error("a new one is ready at once, though an API server may believe the other only")
	}
}

func TestCertificatesOfAShortLifeAreRenewedInTime(t *testing.T) {
	for _, lifetime := range []time.Duration{0, MinLifetime, time.Hour, 24 * time.Hour, DefaultLifetime} {
		s := ScheduleOf(lifetime)
		// A new authority is known, and signs, before what the old one signed ends, and before it does.
		for what, life := range map[string]time.Duration{"certificate": s.Serving, "authority": s.Authority} {
			if left := life - life*2/3 - life/20; s.Overlap+2*s.Settle >= left {
				t.Errorf("%v: overlap %v and settle %v, and %v are left of the %s", lifetime, s.Overlap, s.Settle, left, what)
			}
		}
		if s.Serving < MinLifetime || s.Settle <= 0 {
			t.Errorf("%v: %+v", lifetime, s)
		}
	}
}

func TestAnEmptySecretOfTheManifestsIsFilled(t *testing.T) {
	w := newWorld(t)
	w.secret = &unstructured.Unstructured{Object: map[string]any{"type": SecretType, "metadata": map[string]any{"name": testSecret, "resourceVersion": "1", "labels": map[string]any{"team": "a"}}}}
	r := w.replica()
	w.settle()
	if len(r.Problems()) > 0 || w.secret.GetLabels()["team"] != "a" {
		t.Errorf("problems %v, labels %v", r.Problems(), w.secret.GetLabels())
	}
}

func TestADeletedSecretMakesANewAuthorityAndLosesNothing(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	w.settle()
	w.bundles = w.bundles[1:]
	before := w.holds()
	w.secret = nil
	w.rv++
	w.changed()
	w.settle()
	after := w.holds()
	if after.signer.same(before.signer) || !after.serving.same(before.serving) || !after.believes(before.signer.certificate) || len(after.bundle) != 2 {
		t.Error("want a new authority beside the old, and the certificate that is shown")
	}
	w.believed(time.Hour)
	w.now = w.now.Add(61 * time.Minute)
	w.settle()
	w.believed(time.Hour)
	if !r.held.Load().CheckSignatureFrom(after.signer) {
		t.Error("an hour later the old is shown still")
	}
	t.Run("also when who shows the old hears of it last", func(t *testing.T) {
		a, old := w.replicas[0], w.holds()
		a.deaf = true
		w.secret = nil
		w.rv++
		b := w.replica() // which knows nothing of the past
		w.settle()
		w.believed(time.Hour)
		if !w.holds().believes(old.signer.certificate) {
			t.Error("the authority that the API server believes is not kept")
		}
		a.deaf = false
		w.tell(a)
		w.settle()
		w.believed(0)
		if a.held.Load().same(b.held.Load()) {
			t.Error("the new certificate is shown at once, though API servers may be behind")
		}
		w.now = w.now.Add(2 * time.Minute)
		w.settle()
		if !a.held.Load().same(b.held.Load()) {
			t.Error("the new certificate is not shown after a while")
		}
		w.believed(time.Minute)
	})
}

func TestWhatIsBrokenInTheSecretIsMended(t *testing.T) {
	foreign, err := newAuthority(start, start.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	alien, err := foreign.serve([]string{"elsewhere"}, nil, start, start.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	alienCertificate, alienKey, err := alien.encode()
	if err != nil {
		t.Fatal(err)
	}
	foreignCertificate, foreignKey, err := foreign.encode()
	if err != nil {
		t.Fatal(err)
	}
	type data = map[string][]byte
	for name, edit := range map[string]func(data) data{
		"no bundle":                 func(data) data { return data{keyBundle: nil} },
		"no key of the authority":   func(data) data { return data{keySigner: nil} },
		"no certificate":            func(data) data { return data{keyServing: nil} },
		"no key":                    func(data) data { return data{keyServingKey: nil} },
		"nothing":                   func(data) data { return data{keyBundle: nil, keySigner: nil, keyServing: nil, keyServingKey: nil} },
		"empty values":              func(data) data { return data{keyBundle: {}, keySigner: {}, keyServing: {}, keyServingKey: {}} },
		"garbage":                   func(data) data { return data{keyBundle: []byte("x"), keyServing: {0, 1, 2}} },
		"half a certificate":        func(d data) data { return data{keyServing: d[keyServing][:200]} },
		"half a bundle":             func(d data) data { return data{keyBundle: d[keyBundle][:300]} },
		"a megabyte":                func(data) data { return data{keyBundle: bytes.Repeat([]byte("\n"), 1<<20)} },
		"a bundle of a thousand":    func(d data) data { return data{keyBundle: bytes.Repeat(d[keyBundle], 9)} },
		"the key of another":        func(data) data { return data{keyServingKey: alienKey} },
		"the keys changed":          func(d data) data { return data{keyServingKey: d[keySigner], keySigner: d[keyServingKey]} },
		"a certificate of another":  func(data) data { return data{keyServing: alienCertificate, keyServingKey: alienKey} },
		"the authority is a server": func(d data) data { return data{keyBundle: d[keyServing], keySigner: d[keyServingKey]} },
		"the authority is another":  func(data) data { return data{keyBundle: foreignCertificate, keySigner: foreignKey} },
		"a private key in bundle":   func(d data) data { return data{keyBundle: append(slices.Clone(d[keyBundle]), d[keySigner]...)} },
		"all of another": func(data) data {
			return data{keyBundle: foreignCertificate, keySigner: foreignKey, keyServing: alienCertificate, keyServingKey: alienKey}
		},
		"the same authority 3 times": func(d data) data { return data{keyBundle: bytes.Repeat(d[keyBundle], 3)} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.replica(), w.replica()
			w.settle()
			w.bundles = w.bundles[1:]
			before := w.data()
			w.edit(edit(maps.Clone(before)))
			w.edit(data{"of-somebody-else": []byte("stays")})
			for range 30 {
				if errs := w.settle(); len(errs) > 0 {
					t.Fatal(errs)
				}
				w.believed(time.Minute / 2)
				w.now = w.now.Add(5 * time.Minute)
			}
			m := w.holds()
			if !a.held.Load().same(m.serving) || !b.held.Load().same(m.serving) || verify(m.serving.certificate, m.bundle, w.now) != nil {
				t.Error("what is in the Secret is not shown")
			}
			if string(w.data()["of-somebody-else"]) != "stays" {
				t.Error("what is not ours is gone from it")
			}
			if p := slices.Concat(a.Problems(), b.Problems()); len(p) > 0 {
				t.Errorf("not ready: %v", p)
			}
			if !m.serving.CheckSignatureFrom(m.signer) {
				t.Error("it is not signed by the authority that signs")
			}
			// A replica that starts now can do with it.
			c := w.replica()
			w.settle()
			if !c.held.Load().same(m.serving) || len(c.Problems()) > 0 {
				t.Error("a new replica is not ready")
			}
		})
	}
}

func TestASecretOfSomebodyElseIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.secret = &unstructured.Unstructured{Object: map[string]any{"type": "kubernetes.io/tls", "metadata": map[string]any{"name": testSecret, "resourceVersion": "1"}, "data": map[string]any{"tls.crt": "eA=="}}}
	r := w.replica()
	errs := w.settle()
	if w.writes != 0 || !errors.Is(errs[r], errNotOurs) || r.held.Load() != nil {
		t.Fatalf("%d writes, %v", w.writes, errs[r])
	}
	if p := strings.Join(r.Problems(), ""); !strings.Contains(p, "delete it, or give a certificate by --tls-cert-file") {
		t.Errorf("problems: %s", p)
	}
	if _, err := r.GetCertificate(nil); err == nil {
		t.Error("a certificate is shown")
	}
	t.Run("and one that comes later changes nothing", func(t *testing.T) {
		w := newWorld(t)
		r := w.replica()
		w.settle()
		held := r.held.Load()
		w.secret.Object["type"] = "Opaque"
		w.changed()
		w.now = w.now.Add(70 * 24 * time.Hour)
		w.settle()
		if w.writes != 1 || !r.held.Load().same(held) || len(r.Problems()) > 0 {
			t.Errorf("%d writes, problems %v", w.writes, r.Problems())
		}
	})
}

func TestAReplicaWhoseClockIsWrongMakesNoCertificates(t *testing.T) {
	for _, skew := range []time.Duration{-365 * 24 * time.Hour, -2 * time.Hour, 6 * time.Minute, 100 * 24 * time.Hour, 3 * 365 * 24 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			w := newWorld(t)
			wrong := w.replica()
			wrong.skew = skew
			errs := w.settle()
			if w.writes != 0 || errs[wrong] == nil || !strings.Contains(strings.Join(wrong.Problems(), ""), "set the clock of its node right") {
				t.Fatalf("%d writes, %v, %v", w.writes, errs[wrong], wrong.Problems())
			}
			right := w.replica()
			w.settle()
			if w.writes != 1 || len(right.Problems())+len(wrong.Problems()) > 0 {
				t.Errorf("beside one that is right: %d writes, %v, %v", w.writes, right.Problems(), wrong.Problems())
			}
			w.bundles = w.bundles[1:]
			for range 80 { // past renewals of both
				w.now = w.now.Add(5 * 24 * time.Hour)
				w.settle()
				w.believed(0)
			}
		})
	}
	t.Run("a little is allowed", func(t *testing.T) {
		w := newWorld(t)
		early, late := w.replica(), w.replica()
		early.skew, late.skew = 4*time.Minute, -4*time.Minute
		if errs := w.settle(); len(errs) > 0 {
			t.Fatal(errs)
		}
		w.bundles = w.bundles[1:]
		for range 80 {
			w.now = w.now.Add(5 * 24 * time.Hour)
			w.settle()
			w.believed(0)
		}
	})
}

func TestTheBundleIsGivenAgainWhenTheManifestIsAppliedAnew(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	w.settle()
	w.apply()
	r.review(nil)
	if p := strings.Join(r.Problems(), ""); !strings.Contains(p, "not in the caBundle of horkos") {
		t.Errorf("problems without a bundle: %q", p)
	}
	w.settle()
	for i, bundle := range bundlesOf(w.hooks) {
		if !bytes.Equal(bundle, encodeCertificates(w.holds().bundle...)) {
			t.Errorf("webhook %d", i)
		}
	}
	if len(r.Problems()) > 0 {
		t.Error(r.Problems())
	}
	version := w.rv
	w.settle()
	if w.rv != version {
		t.Error("it is given again for nothing")
	}
	t.Run("not before there is one", func(t *testing.T) {
		w := newWorld(t)
		w.hooks = nil
		r := w.replica()
		if errs := w.settle(); len(errs) > 0 || len(r.Problems()) > 0 {
			t.Errorf("%v, %v", errs, r.Problems())
		}
	})
	t.Run("a list that was changed meanwhile is not confused", func(t *testing.T) {
		w := newWorld(t)
		r := w.replica()
		w.settle()
		w.apply()
		old := w.hooks.DeepCopy()
		list := w.hooks.Object["webhooks"].([]any)
		slices.Reverse(list)
		_ = r.injected[testConfiguration].Update(old) // its watch lags
		if err := r.step(t.Context()); err == nil || !apierrors.IsInvalid(err) {
			t.Errorf("the patch of another list: %v", err)
		}
		w.changed()
		w.settle()
		if len(r.Problems()) > 0 {
			t.Error(r.Problems())
		}
	})
	t.Run("what cannot be given is told, and what is shown stays", func(t *testing.T) {
		w := newWorld(t)
		r := w.replica()
		w.settle()
		held := r.held.Load()
		w.noInject = errors.New("patch is forbidden")
		w.secret = nil
		w.rv++
		w.changed()
		for range 300 {
			w.now = w.now.Add(time.Hour)
			w.settle()
			w.believed(0)
		}
		if !r.held.Load().same(held) {
			t.Error("what is not believed is shown")
		}
		w.noInject = nil
		w.settle()
		w.now = w.now.Add(time.Hour)
		w.settle()
		w.believed(0)
		if r.held.Load().same(held) {
			t.Error("the old is shown still")
		}
	})
}

func TestWhatIsInTheSecretIsShownAlsoWhenItCannotBeWritten(t *testing.T) {
	w := newWorld(t)
	w.replica()
	w.settle()
	w.bundles = w.bundles[1:]
	w.now = w.now.Add(80 * 24 * time.Hour) // due, and holds
	w.refuse = errors.New("update is forbidden")
	w.replicas = nil
	r := w.replica()
	errs := w.settle()
	if r.held.Load() == nil || len(r.Problems()) > 0 || errs[r] == nil {
		t.Fatalf("%v, %v", r.Problems(), errs[r])
	}
	w.believed(0)
	w.apply()
	w.bundles = w.bundles[:0]
	w.settle()
	w.believed(0)
	if len(r.Problems()) > 0 {
		t.Error(r.Problems())
	}
}

func TestANameThatIsMissingIsAddedAndReplicasDoNotTakeTurns(t *testing.T) {
	w := newWorld(t)
	w.replica()
	w.settle()
	w.replica(func(o *KeeperOptions) { o.Names = []string{"another.svc"} })
	w.settle()
	want := []string{"another.svc", "horkos-webhook.horkos-system.svc"}
	got := slices.Sorted(slices.Values(w.holds().serving.certificate.DNSNames))
	if !slices.Equal(got, want) || w.writes != 2 {
		t.Errorf("%v after %d writes", got, w.writes)
	}
}

func TestNoKeyIsInALogOrAnError(t *testing.T) {
	w := newWorld(t)
	w.replica()
	w.settle()
	for _, key := range []string{keySigner, keyServingKey} {
		for _, text := range [][]byte{[]byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"), []byte("secret")} {
			data := w.data()
			data[key] = text
			_, faults := decodeMaterial(data)
			if s := strings.Join(faults, ""); s == "" || strings.Contains(s, "secret") || strings.Contains(s, "c2VjcmV0") {
				t.Errorf("%q", s)
			}
		}
	}
}

func TestAnAuthoritySignsServersOnly(t *testing.T) {
	a, err := newAuthority(start, start.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.serve([]string{"x"}, nil, start, start.AddDate(5, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if s.certificate.NotAfter.After(a.certificate.NotAfter) || s.certificate.IsCA || !a.certificate.MaxPathLenZero {
		t.Error("it outlives its authority, or is one")
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	if _, err := s.certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("it passes for a client")
	}
}

func FuzzASecretIsReadWithoutHarm(f *testing.F) {
	w := &world{now: start}
	a, _ := newAuthority(start, start.AddDate(1, 0, 0))
	s, _ := a.serve([]string{"x"}, nil, start, start.AddDate(0, 1, 0))
	data, err := material{bundle: []*x509.Certificate{a.certificate}, signer: a, serving: s}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[keyBundle], data[keySigner], data[keyServing], data[keyServingKey])
	f.Fuzz(func(t *testing.T, bundle, signer, serving, key []byte) {
		have, _ := decodeMaterial(map[string][]byte{keyBundle: bundle, keySigner: signer, keyServing: serving, keyServingKey: key})
		if have.signer == nil || have.serving == nil {
			return // making keys takes chance paths, which a fuzzer takes for news
		}
		want, _, err := DefaultSchedule().next(have, situation{now: w.now, names: []string{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(want.serving.certificate, want.bundle, w.now); err != nil {
			t.Fatal(err)
		}
		if _, err := want.encode(); err != nil {
			t.Fatal(err)
		}
	})
}
