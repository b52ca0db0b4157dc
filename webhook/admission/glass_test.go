package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/horkos/horkos/verifier"
)

// glassed judges breakglass as it is told to.
func glassed(g Glass) func(*Options) {
	return func(o *Options) { o.Breakglass = func(context.Context, Review) Glass { return g } }
}

// asksForBreakglass is the review of a pod with a good image and a bad one.
func asksForBreakglass(images ...string) review {
	o := anObject("Pod", podOf(images...))
	o["metadata"].(m)["annotations"] = m{"kritis.grafeas.io/breakglass": "INC-1"}
	return aReview("CREATE", "Pod", nil).with(review{"object": o})
}

func TestBreakglassLetsThroughWhatItMayAndIsRecorded(t *testing.T) {
	var seen []Review
	d := newDoor(t, shop(t), func(o *Options) {
		o.Breakglass = func(_ context.Context, r Review) Glass {
			seen = append(seen, r)
			return Glass{Broken: true, Reason: "INC-1"}
		}
	})
	r := asksForBreakglass(good, bad)
	resp := d.ask(r)
	wantAllowed(t, resp)
	if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "breakglass (nodes know none): denied without it: ") || resp.AuditAnnotations["reason"] != "Breakglass" {
		t.Errorf("%+v", resp)
	}
	if d.records[0].Reason != verifier.Attested || d.records[1].Reason != "Breakglass" || !d.records[1].Admitted || d.records[1].Result != verifier.Allowed ||
		!strings.Contains(fmt.Sprint(d.records[1].Checks), "by alice: INC-1; without it: NotAttested") ||
		d.records[1].Message != "image "+bad+" is let through by breakglass: by alice: INC-1; without it: NotAttested" {
		t.Errorf("records %+v", d.records)
	}
	if got := d.counted()["enforce webhook Breakglass allowed"]; got != 1 {
		t.Errorf("counted %v", d.counted())
	}
	if len(d.events) != 1 || d.events[0].Reason != BreakglassAdmission || !strings.HasPrefix(d.events[0].Message, "breakglass by alice: INC-1. Without it: image "+bad+" is not attested") ||
		resp.AuditAnnotations["message"] != d.events[0].Message {
		t.Errorf("events %+v", d.events)
	}
	if len(seen) != 1 || seen[0].Breakglass != "INC-1" || !slices.Equal(seen[0].Images, []string{good, bad}) ||
		!slices.Equal(seen[0].Denied, []Denied{{bad, verifier.NotAttested}}) ||
		seen[0].User.Username != "alice" || seen[0].User.Extra["scopes"][0] != "a" || seen[0].Namespace != "shop" {
		t.Errorf("breakglass was asked about %+v", seen)
	}
	d.ask(aReview("CREATE", "Pod", podOf(good)))
	d.ask(aReview("CREATE", "Pod", nil).with(review{"object": 1}))
	if len(seen) != 1 {
		t.Error("breakglass was asked about what needs none, or cannot be understood")
	}
	d.full = true
	wantDenied(t, d.ask(r), "could not be recorded")
}

func TestALongReasonAndALongNameAreRecordedAndLeaveRoomForTheImage(t *testing.T) {
	reason, name := strings.Repeat("r", 1000)+"!", strings.Repeat("n", 1000)
	d := newDoor(t, shop(t), glassed(Glass{Broken: true, Reason: reason}))
	resp := d.ask(asksForBreakglass(bad).with(review{"userInfo": m{"username": name}}))
	wantAllowed(t, resp)
	if got := fmt.Sprint(d.records[0].Checks); !strings.Contains(got, reason) || !strings.Contains(got, name[:200]) || len(got) > 2500 || len(d.records[0].Message) > verifier.MaxMessage {
		t.Errorf("record %+v", d.records[0])
	}
	if e := d.events[0]; len(e.Message) > maxAnnotation || !strings.Contains(e.Message, "image "+bad+" is not attested") {
		t.Errorf("event %+v", e)
	}
}

func TestWhatBreaksInBreakglassBreaksNoGlassAndIsTold(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Options)
		told   string
	}{
		"nobody asked":          {glassed(Glass{}), ""},
		"it is not for them":    {glassed(Glass{Refused: "user alice may not"}), "user alice may not"},
		"it fails":              {glassed(Glass{Broken: true, Reason: "INC-1", Err: errors.New("no answer")}), "it could not be judged"},
		"it is of two opinions": {glassed(Glass{Broken: true, Reason: "INC-1", Refused: "no"}), "it could not be judged"},
		"it comes too late": {func(o *Options) {
			o.Breakglass = func(ctx context.Context, _ Review) Glass {
				<-ctx.Done()
				return Glass{Broken: true, Reason: "INC-1"}
			}
		}, "it was not judged in time: try again"},
		"it panics": {func(o *Options) {
			o.Breakglass = func(context.Context, Review) Glass { panic("x") }
		}, "it could not be judged"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, shop(t), tt.change)
			hurried := newRequest(asksForBreakglass(good, bad).json(t))
			hurried.URL.RawQuery = "timeout=50ms"
			resp := d.answered(d.serve(hurried))
			wantDenied(t, resp, bad, tt.told)
			if strings.Contains(resp.Result.Message, "breakglass was asked for and refused: ") != (tt.told != "") {
				t.Errorf("message %q", resp.Result.Message)
			}
		})
	}
}

func TestWhoAsksForBreakglassInVainIsToldWhyAndItIsRecorded(t *testing.T) {
	d := newDoor(t, shop(t), glassed(Glass{Refused: "user alice may not\x1b breakglass", Err: errors.New("10.0.0.1: no route")}))
	const told = "; breakglass was asked for and refused: user alice may not? breakglass. If you trust this content: horkos attest "
	resp := d.ask(asksForBreakglass(good, bad))
	wantDenied(t, resp, "image "+bad+" is not attested: by authority release (no attestation found)"+told)
	if len(d.records) != 2 || strings.Contains(d.records[0].Message, "breakglass") || d.records[1].Admitted || d.records[1].Reason != verifier.NotAttested || !strings.Contains(d.records[1].Message, told) {
		t.Errorf("records %+v", d.records)
	}
	if len(d.events) != 1 || d.events[0].Reason != FailedAdmission || !strings.Contains(d.events[0].Message, told) {
		t.Errorf("events %+v", d.events)
	}
	if all := fmt.Sprintf("%+v %+v %+v", resp, d.records, d.events); strings.Contains(all, "10.0.0.1") {
		t.Errorf("what is for the log is told: %s", all)
	}
	if !strings.Contains(d.log.String(), "10.0.0.1: no route") {
		t.Errorf("log %s", d.log.String())
	}
	wantDenied(t, d.ask(asksForBreakglass(bad).with(review{"dryRun": true})), told)
	if len(d.records) != 2 {
		t.Error("a dry run was recorded")
	}
}

func TestAnAttemptAtBreakglassIsBoundedInMessageAndRecord(t *testing.T) {
	var names []string
	for n := range 100 {
		names = append(names, fmt.Sprintf("registry.example.com/%s/app-%d:1", strings.Repeat("x", 200), n))
	}
	for _, text := range []string{strings.Repeat("x", 1<<20), strings.Repeat("\u20ac", 1<<18), strings.Repeat("\n", 1<<10)} {
		d := newDoor(t, shop(t), glassed(Glass{Refused: text}))
		wantDenied(t, d.ask(asksForBreakglass(names...)), "is not attested: ", "more; breakglass was asked for and refused: ", "Write repository@sha256:... in place of the tag")
		for _, r := range d.records {
			if len(r.Message) > verifier.MaxMessage || len(fmt.Sprint(r.Checks)) > 1000 {
				t.Fatalf("record %+v", r)
			}
		}
	}
}

func TestNobodyIsToldThatAReviewIsTriedAgain(t *testing.T) {
	d := newDoor(t, verify(func(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
		return verifier.Refuse(req, verifier.Unavailable, verifier.SourceUnavailable, "no answer"), nil
	}))
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(good))), ". Try again; whoever keeps Horkos has to see that the source of attestations can be reached")
	d.Verifier = shop(t)
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf("Upper/Case"))), "image Upper/Case is refused: the repository must be in lower case", ". Correct it, and try again")
	d.ask(aReview("CREATE", "Pod", nil).with(review{"object": 1}))
	for _, r := range d.records {
		if strings.Contains(r.Message, "tried again") || strings.Contains(r.Message, "asked again") {
			t.Errorf("record %q", r.Message)
		}
	}
	if len(d.records) != 3 {
		t.Errorf("%d records", len(d.records))
	}
}

func TestWhoBreaksTheGlassForATemplateIsToldThatItsPodsNeedAToken(t *testing.T) {
	const needs = "the pods that come of it need a token: horkos breakglass -o patch"
	for name, tt := range map[string]struct {
		body    string
		forPods bool
		want    bool
	}{
		"a pod":                    {sample, false, false},
		"a Deployment":             {sampleDeployment, false, true},
		"a Deployment, by a token": {sampleDeployment, true, false},
	} {
		d := newDoor(t, verify(func(_ context.Context, req *verifier.Request) (verifier.Decision, error) {
			return verifier.Refuse(req, verifier.Denied, verifier.NotAttested, ""), nil
		}), func(o *Options) {
			o.Breakglass = func(context.Context, Review) Glass { return Glass{Broken: true, Reason: "INC-7", ForPods: tt.forPods} }
		})
		resp := d.answered(d.send([]byte(tt.body)))
		if !resp.Allowed || slices.Contains(resp.Warnings, needs) != tt.want {
			t.Errorf("%s: %t, %q", name, resp.Allowed, resp.Warnings)
		}
		if log := d.log.String(); !strings.Contains(log, "let through by breakglass") || !strings.Contains(log, "INC-7") {
			t.Errorf("%s: the log says %q", name, log)
		}
	}
}

var sampleDeployment = strings.NewReplacer(`"kind":{"group":"","version":"v1","kind":"Pod"}`, `"kind":{"group":"apps","version":"v1","kind":"Deployment"}`,
	`"resource":{"group":"","version":"v1","resource":"pods"}`, `"resource":{"group":"apps","version":"v1","resource":"deployments"}`,
	`"apiVersion":"v1","kind":"Pod"`, `"apiVersion":"apps/v1","kind":"Deployment"`,
	`"spec":{"containers":[{"name":"c","image":"alpine:3.11"}]}`, `"spec":{"template":{"spec":{"containers":[{"name":"c","image":"alpine:3.11"}]}}}`).Replace(sample)

func TestWhatPassesByAnEmergencyAttestationHasAnEvent(t *testing.T) {
	d := newDoor(t, verify(func(_ context.Context, req *verifier.Request) (verifier.Decision, error) {
		dec := verifier.Refuse(req, verifier.Denied, verifier.NotAttested, "")
		for i := range dec.Images {
			dec.Images[i].Result, dec.Images[i].Reason = verifier.Allowed, verifier.Emergency
		}
		dec.Conclude()
		return dec, nil
	}))
	if resp := d.answered(d.send([]byte(sample))); !resp.Allowed {
		t.Fatal(resp.Result)
	}
	if len(d.events) != 1 || d.events[0].Reason != EmergencyAdmission || !strings.Contains(d.events[0].Message, "alpine:3.11") {
		t.Errorf("events %+v", d.events)
	}
	d.send([]byte(spoilt(`"dryRun":false`, `"dryRun":true`)))
	if len(d.events) != 1 {
		t.Error("a dry run has an event")
	}
}
