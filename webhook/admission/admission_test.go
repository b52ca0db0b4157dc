package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/horkos/horkos/gate"
	"github.com/horkos/horkos/verifier"
	"github.com/horkos/horkos/verifier/evidence"
)

func TestABadImageInAnyPlaceOfAnyWorkloadIsDenied(t *testing.T) {
	fields := map[string]func(image string) m{
		"initContainers":      func(i string) m { return m{"initContainers": []m{{"name": "i", "image": i}}} },
		"containers":          func(i string) m { return m{"containers": []m{{"name": "a", "image": good}, {"name": "b", "image": i}}} },
		"ephemeralContainers": func(i string) m { return m{"ephemeralContainers": []m{{"name": "e", "image": i}}} },
		"image volume": func(i string) m {
			return m{"volumes": []m{{"name": "w", "emptyDir": m{}}, {"name": "v", "image": m{"reference": i, "pullPolicy": "Always"}}}}
		},
	}
	d := newDoor(t, shop(t))
	ran := 0
	for _, k := range kinds {
		for field, set := range fields {
			t.Run(k.kind+"/"+field, func(t *testing.T) {
				pod := func(image string) m {
					p := podOf(good)
					maps.Copy(p, set(image))
					return p
				}
				wantAllowed(t, d.ask(aReview("CREATE", k.kind, pod(good))))
				wantDenied(t, d.ask(aReview("CREATE", k.kind, pod(bad))), "image "+bad+" is not attested: by authority release (no attestation found)")
				wantDenied(t, d.ask(aReview("UPDATE", k.kind, pod(bad)).with(review{"oldObject": anObject(k.kind, pod(good))})), "image "+bad+" is not attested")
				wantDenied(t, d.ask(aReview("CREATE", k.kind, pod("alpine:3.11"))), "image alpine:3.11 is not attested: by authority release (the image is named by a tag")
				ran++
			})
		}
	}
	if ran != 8*4 {
		t.Errorf("%d of 32 ran", ran)
	}
}

func TestAllBadImagesAreInOneMessageInTheOrderOfThePod(t *testing.T) {
	d := newDoor(t, shop(t))
	pod := podOf("b:1", good, "b:1")
	pod["initContainers"] = []m{{"image": "a:1"}}
	pod["volumes"] = []m{{"name": "v", "image": m{"reference": "c:1"}}}
	resp := d.ask(aReview("CREATE", "Pod", pod))
	wantDenied(t, resp, "image a:1 is not attested", "; image b:1 is not attested", "; image c:1 is not attested", "Write repository@sha256:... in place of the tag")
	a, b, c := strings.Index(resp.Result.Message, "a:1"), strings.Index(resp.Result.Message, "b:1"), strings.Index(resp.Result.Message, "c:1")
	if a > b || b > c || strings.Count(resp.Result.Message, "b:1") != 1 || strings.Contains(resp.Result.Message, good) {
		t.Errorf("message %q", resp.Result.Message)
	}
	if len(d.records) != 4 {
		t.Errorf("%d records, want one an image", len(d.records))
	}

	var many []string
	for n := range 100 {
		many = append(many, fmt.Sprintf("registry.example.com/team/app-%d:1", n))
	}
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(many...))), "image registry.example.com/team/app-0:1 is not attested", " more. Write")
}

func TestTheDigestWrittenIsDecidedOn(t *testing.T) {
	d := newDoor(t, shop(t))
	wantAllowed(t, d.ask(aReview("CREATE", "Pod", podOf(repository+":v1@"+string(cart(1).Digest)))))
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf("registry.example.com/other@"+string(cart(1).Digest)))), "is not attested")
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(string(cart(1).Digest)))), "an image id names content of one node")
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf("Upper/Case"))), "image Upper/Case is refused: the repository must be in lower case")
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(""))), "image without a name is refused")
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf())), "image without a name is refused")
}

func TestATagIsAllowedWhereNothingIsRequiredOfIt(t *testing.T) {
	w := shop(t, "apiVersion: kritis.grafeas.io/v1beta1\nkind: AdmissionAllowlist\nmetadata: {name: acs}\nspec: {patterns: [{namePattern: 'registry.example.com/acs/*'}]}\n")
	wantAllowed(t, newDoor(t, w).ask(aReview("CREATE", "Pod", podOf("registry.example.com/acs/pause:3.2"))))
	w.decider.Default = verifier.AllowByDefault
	resp := newDoor(t, w).ask(aReview("CREATE", "Pod", podOf("alpine:3.11")).with(review{"namespace": "free", "object": m{"apiVersion": "v1", "kind": "Pod", "spec": podOf("alpine:3.11")}}))
	wantAllowed(t, resp)
	if resp.AuditAnnotations["reason"] != string(verifier.NoPolicy) {
		t.Errorf("annotations %v", resp.AuditAnnotations)
	}
}

func TestAnOwnerIsNeverTrusted(t *testing.T) {
	d := newDoor(t, shop(t))
	o := anObject("Pod", podOf(bad))
	o["metadata"].(m)["ownerReferences"] = []m{{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-5d4f", "uid": "0b1c", "controller": true}}
	wantDenied(t, d.ask(aReview("CREATE", "Pod", nil).with(review{"object": o,
		"userInfo": m{"username": "system:serviceaccount:kube-system:replicaset-controller"}})), "is not attested")
}

func TestSettingTheImageOfADeploymentIsReviewed(t *testing.T) {
	d := newDoor(t, shop(t))
	wantDenied(t, d.ask(aReview("UPDATE", "Deployment", podOf(bad)).with(review{"oldObject": anObject("Deployment", podOf(good))})), "image "+bad+" is not attested")
	wantAllowed(t, d.ask(aReview("UPDATE", "Deployment", podOf(good)).with(review{"oldObject": anObject("Deployment", podOf(bad))})))
}

func TestAnOldReplicaSetCanBeScaledAndItsPodsAreDenied(t *testing.T) {
	d := newDoor(t, shop(t))
	old, scaled := anObject("ReplicaSet", podOf(bad)), anObject("ReplicaSet", podOf(bad))
	scaled["spec"].(m)["replicas"] = 5
	wantAllowed(t, d.ask(aReview("UPDATE", "ReplicaSet", nil).with(review{"object": scaled, "oldObject": old})))
	wantAllowed(t, d.ask(aReview("UPDATE", "ReplicaSet", nil).with(review{"subResource": "scale",
		"kind":   m{"group": "autoscaling", "version": "v1", "kind": "Scale"},
		"object": m{"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": m{"replicas": 5}}})))
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(bad))), "is not attested")
	// One that nobody scales yet is judged when it is made.
	wantDenied(t, d.ask(aReview("CREATE", "ReplicaSet", podOf(bad))), "is not attested")
}

func TestAnEphemeralContainerIsReviewed(t *testing.T) {
	d := newDoor(t, shop(t))
	debugged := func(image string) m {
		p := podOf(good)
		p["ephemeralContainers"] = []m{{"name": "debugger", "image": image, "targetContainerName": "c0"}}
		return p
	}
	r := aReview("UPDATE", "Pod", nil).with(review{"subResource": "ephemeralcontainers", "oldObject": anObject("Pod", podOf(good))})
	wantDenied(t, d.ask(r.with(review{"object": anObject("Pod", debugged("busybox:1.28"))})), "image busybox:1.28 is not attested")
	wantAllowed(t, d.ask(r.with(review{"object": anObject("Pod", debugged(good))})))
	// If anything changed, all is judged again.
	rest := debugged(good)
	rest["containers"] = []m{{"name": "c0", "image": bad}}
	wantDenied(t, d.ask(r.with(review{"object": anObject("Pod", rest)})), bad)
	resp := d.ask(r.with(review{"kind": m{"version": "v1", "kind": "EphemeralContainers"}, "object": m{}}))
	if resp.Allowed || resp.Result.Code != http.StatusBadRequest {
		t.Errorf("ephemeral containers of another kind: %+v", resp)
	}
}

func TestTheNamespaceIsThatOfTheRequest(t *testing.T) {
	w := shop(t)
	w.decider.Default = verifier.AllowByDefault
	d := newDoor(t, w)
	elsewhere := anObject("Pod", podOf(bad))
	elsewhere["metadata"].(m)["namespace"] = "free"
	nowhere := anObject("Pod", podOf(bad))
	delete(nowhere["metadata"].(m), "namespace")
	for name, r := range map[string]review{
		"the object names another":      {"object": elsewhere},
		"the old object names another":  {"operation": "UPDATE", "object": anObject("Pod", podOf(bad)), "oldObject": elsewhere},
		"the request is in another":     {"namespace": "free", "object": anObject("Pod", podOf(bad))},
		"the request is in none":        {"namespace": "", "object": nowhere},
		"no namespace can be called so": {"namespace": "Shop", "object": nowhere},
	} {
		t.Run(name, func(t *testing.T) {
			resp := d.ask(aReview("CREATE", "Pod", nil).with(r))
			if resp.Allowed || resp.Result.Code != http.StatusBadRequest || !strings.Contains(resp.Result.Message, "namespace") {
				t.Errorf("%+v", resp)
			}
		})
	}
	wantDenied(t, d.ask(aReview("CREATE", "Pod", nil).with(review{"object": nowhere})), "is not attested")
}

func TestAnUpdateThatChangesNothingDecidedOnPasses(t *testing.T) {
	d := newDoor(t, verify(func(context.Context, *verifier.Request) (verifier.Decision, error) {
		t.Error("the verifier was asked")
		return verifier.Decision{}, nil
	}))
	for _, k := range kinds {
		old, now := anObject(k.kind, podOf(bad, "b:1")), anObject(k.kind, podOf("b:1", bad))
		now["metadata"].(m)["annotations"] = m{"note": "x", mirrorAnnotation: "y"}
		now["metadata"].(m)["finalizers"] = []string{"a/b"}
		resp := d.ask(aReview("UPDATE", k.kind, nil).with(review{"object": now, "oldObject": old}))
		wantAllowed(t, resp)
		if len(resp.Warnings)+len(resp.AuditAnnotations)+len(d.records) > 0 {
			t.Errorf("%s: %+v", k.kind, resp)
		}
	}
}

func TestAnUpdateThatChangesAnyImageIsDecided(t *testing.T) {
	d := newDoor(t, shop(t))
	pod := func(init, containers []string) m {
		p := podOf(containers...)
		p["initContainers"] = podOf(init...)["containers"]
		return p
	}
	for name, tt := range map[string]struct{ old, now m }{
		"an image more":            {podOf(bad), podOf(bad, "b:1")},
		"an image less":            {podOf(bad, "b:1"), podOf(bad)},
		"one twice, and then once": {podOf(bad, bad, "b:1"), podOf(bad, "b:1", "b:1")},
		"one twice, and then not":  {podOf(bad, bad), podOf(bad)},
		"moved to another field":   {pod([]string{good}, []string{bad}), pod([]string{bad}, []string{good})},
		"tag in place of a digest": {podOf(good), podOf(repository + ":v1")},
	} {
		t.Run(name, func(t *testing.T) {
			wantDenied(t, d.ask(aReview("UPDATE", "Deployment", tt.now).with(review{"oldObject": anObject("Deployment", tt.old)})), "is not attested")
		})
	}
	t.Run("without an old object", func(t *testing.T) {
		wantDenied(t, d.ask(aReview("UPDATE", "Deployment", podOf(bad))), "is not attested")
	})
}

func TestWhatBringsNoImagePasses(t *testing.T) {
	d := newDoor(t, verify(func(context.Context, *verifier.Request) (verifier.Decision, error) {
		t.Error("the verifier was asked")
		return verifier.Decision{}, nil
	}))
	for name, r := range map[string]review{
		"DELETE":   aReview("DELETE", "Pod", nil).with(review{"object": nil, "oldObject": anObject("Pod", podOf(bad))}),
		"CONNECT":  aReview("CONNECT", "Pod", nil).with(review{"subResource": "exec", "kind": m{"version": "v1", "kind": "PodExecOptions"}, "object": m{"kind": "PodExecOptions"}}),
		"eviction": aReview("CREATE", "Pod", nil).with(review{"subResource": "eviction", "kind": m{"group": "policy", "version": "v1", "kind": "Eviction"}, "object": m{}}),
		"binding":  aReview("CREATE", "Pod", nil).with(review{"subResource": "binding", "kind": m{"version": "v1", "kind": "Binding"}, "object": m{}}),
		"status":   aReview("UPDATE", "Pod", podOf(bad)).with(review{"subResource": "status", "oldObject": anObject("Pod", podOf(bad))}),
	} {
		t.Run(name, func(t *testing.T) { wantAllowed(t, d.ask(r)) })
	}
}

func TestANewSubresourceThatCarriesAPodIsReviewed(t *testing.T) {
	r := aReview("UPDATE", "Pod", podOf(bad)).with(review{"subResource": "resize", "oldObject": anObject("Pod", podOf(good))})
	wantDenied(t, newDoor(t, shop(t)).ask(r), "is not attested")
}

func TestAMirrorPodIsDecidedWarnedAboutAndPassed(t *testing.T) {
	d := newDoor(t, shop(t))
	o := anObject("Pod", podOf(bad))
	o["metadata"].(m)["annotations"] = m{mirrorAnnotation: "abc"}
	o["spec"].(m)["nodeName"] = "n1"
	d.Breakglass = func(_ context.Context, r Review) Glass {
		if r.User.Username == "system:node:n1" && r.SubResource == "" && r.Kind.Kind == "Pod" && len(d.records) == 0 {
			t.Error("breakglass was asked")
		}
		return Glass{}
	}
	node := m{"username": "system:node:n1", "groups": []string{"system:nodes", "system:authenticated"}}
	r := aReview("CREATE", "Pod", nil).with(review{"object": o, "userInfo": node})
	resp := d.ask(r)
	wantAllowed(t, resp)
	if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "static pod, its node decides: would be denied: ") || resp.AuditAnnotations["reason"] != "NotAttested" {
		t.Errorf("%+v", resp)
	}
	if rec := d.records[0]; !rec.Admitted || !rec.Static || rec.Result != verifier.Denied || rec.Enforcement != "audit" || rec.Gate != "webhook" {
		t.Errorf("record %+v", rec)
	}
	if len(d.events) != 0 {
		t.Errorf("events %+v", d.events)
	}

	plain, elsewhere := anObject("Pod", podOf(bad)), anObject("Pod", podOf(bad))
	plain["spec"].(m)["nodeName"] = "n1"
	elsewhere["metadata"].(m)["annotations"], elsewhere["spec"].(m)["nodeName"] = m{mirrorAnnotation: "abc"}, "n2"
	unbound := anObject("Pod", podOf(bad))
	unbound["metadata"].(m)["annotations"] = m{mirrorAnnotation: "abc"}
	replica := anObject("ReplicaSet", podOf(bad))
	replica["metadata"].(m)["annotations"], replica["spec"].(m)["nodeName"] = m{mirrorAnnotation: "abc"}, "n1"
	for name, forged := range map[string]review{
		"a user":                     {"userInfo": m{"username": "alice", "groups": []string{"system:nodes"}}},
		"a user called as a node is": {"userInfo": m{"username": "system:node:n1", "groups": []string{"devs"}}},
		"a node without a name":      {"userInfo": m{"username": "system:node:", "groups": []string{"system:nodes"}}, "object": unbound},
		"another node":               {"userInfo": m{"username": "system:node:n2", "groups": []string{"system:nodes"}}},
		"a pod on another node":      {"object": elsewhere},
		"without the annotation":     {"object": plain},
		"ephemeral containers":       {"subResource": "ephemeralcontainers"},
	} {
		t.Run(name, func(t *testing.T) { wantDenied(t, d.ask(r.with(forged)), "is not attested") })
	}
	t.Run("what is no pod", func(t *testing.T) {
		wantDenied(t, d.ask(aReview("CREATE", "ReplicaSet", nil).with(review{"object": replica, "userInfo": node})), "is not attested")
	})
}

func TestAMirrorPodThatIsMadeAnOrdinaryOneIsDecidedOn(t *testing.T) {
	d := newDoor(t, shop(t))
	mirror := func(image string) m {
		o := anObject("Pod", podOf(image))
		o["metadata"].(m)["annotations"] = m{mirrorAnnotation: "abc"}
		return o
	}
	r := aReview("UPDATE", "Pod", podOf(bad))
	wantDenied(t, d.ask(r.with(review{"oldObject": mirror(bad)})), "is not attested")
	wantAllowed(t, d.ask(r.with(review{"object": anObject("Pod", podOf(good)), "oldObject": mirror(good)})))
	wantAllowed(t, d.ask(r.with(review{"object": mirror(bad), "oldObject": mirror(bad)})))
}

func TestADryRunOfTheClusterLetsThroughAndTells(t *testing.T) {
	d := newDoor(t, shop(t), func(o *Options) {
		o.DryRun = true
		o.Breakglass = func(context.Context, Review) Glass {
			t.Error("breakglass was asked")
			return Glass{Broken: true}
		}
	})
	resp := d.ask(aReview("CREATE", "Deployment", podOf(bad, "alpine:3.11")))
	wantAllowed(t, resp)
	want := []string{
		"dry run: would be denied: " + repository + "@" + string(cart(2).Digest)[:19] + ": NotAttested",
		"dry run: would be denied: alpine:3.11: TagNotResolved",
	}
	if !slices.Equal(resp.Warnings, want) {
		t.Errorf("warnings %q, want %q", resp.Warnings, want)
	}
	if !strings.Contains(resp.AuditAnnotations["message"], "image "+bad+" is not attested") {
		t.Errorf("annotations %v", resp.AuditAnnotations)
	}
	if len(d.records) != 2 || !d.records[0].Admitted || d.records[0].Enforcement != "audit" {
		t.Errorf("records %+v", d.records)
	}
	if len(d.events) != 1 || d.events[0].Reason != DryRunAdmission || !strings.Contains(d.events[0].Message, "image alpine:3.11 is not attested") {
		t.Errorf("events %+v", d.events)
	}
	if resp := d.ask(aReview("CREATE", "Deployment", podOf(good))); len(resp.Warnings) > 0 || len(d.events) > 1 {
		t.Errorf("of what is attested: %+v", resp)
	}
	if resp := d.ask(aReview("CREATE", "Deployment", nil).with(review{"object": "x"})); !resp.Allowed || len(resp.Warnings) != 1 {
		t.Errorf("of what cannot be understood: %+v", resp)
	}
}

func TestADryRunOfTheRequestLeavesNothingBehind(t *testing.T) {
	d := newDoor(t, shop(t))
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(bad)).with(review{"dryRun": true})), "is not attested")
	wantAllowed(t, d.ask(aReview("CREATE", "Pod", podOf(good)).with(review{"dryRun": true})))
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(bad)).with(review{"dryRun": true, "object": anObject("Pod", podOf("b:1"))})), "b:1")
	d.ask(aReview("CREATE", "Pod", nil).with(review{"dryRun": true, "object": 1}))
	if len(d.records)+len(d.events) > 0 || len(d.counted()) > 0 || d.log.Len() > 0 {
		t.Errorf("records %v, events %v, counted %v, log %s", d.records, d.events, d.counted(), d.log.String())
	}
}

// counted is what the counter of decisions holds, by its labels.
func (d *door) counted() map[string]float64 {
	families, err := d.registry.Gather()
	if err != nil {
		d.t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != "horkos_decisions_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			all[strings.Join(labels, " ")] = m.GetCounter().GetValue()
		}
	}
	return all
}

func TestADenialIsRecordedCountedAndTold(t *testing.T) {
	d := newDoor(t, shop(t))
	d.ask(aReview("CREATE", "StatefulSet", podOf(bad, good)))
	d.ask(aReview("CREATE", "Pod", podOf(good)))
	if len(d.records) != 3 {
		t.Fatalf("%d records", len(d.records))
	}
	if r := d.records[0]; r.Gate != "webhook" || r.Node != "webhook-1" || r.Namespace != "shop" || r.Pod != "StatefulSet/cart" || r.UID != "0b1c" ||
		r.Image != bad || r.Admitted || r.Enforcement != "enforce" || r.Reason != verifier.NotAttested || r.Static || len(r.Checks) != 1 {
		t.Errorf("record %+v", r)
	}
	if r := d.records[2]; r.Pod != "cart" || !r.Admitted || r.Reason != verifier.Attested {
		t.Errorf("record %+v", r)
	}
	want := map[string]float64{"enforce webhook NotAttested denied": 1, "enforce webhook Attested allowed": 1}
	if got := d.counted(); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if len(d.events) != 1 {
		t.Fatalf("events %+v", d.events)
	}
	e := d.events[0]
	if e.Message == "" || !strings.HasPrefix(e.Message, "image "+bad+" is not attested") {
		t.Errorf("event %+v", e)
	}
	e.Message = ""
	if wantEvent := (Event{Reason: FailedAdmission, Time: noon, APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: "shop", Name: "cart", UID: "0b1c",
		Operation: "CREATE", User: "alice"}); e != wantEvent {
		t.Errorf("event %+v, want %+v", e, wantEvent)
	}
}

func TestAnObjectThatHasNoNameYetIsKnownByWhatItBeginsWith(t *testing.T) {
	d := newDoor(t, shop(t))
	o := anObject("Pod", podOf(bad))
	o["metadata"] = m{"generateName": "cart-5d4f-"}
	d.ask(aReview("CREATE", "Pod", nil).with(review{"name": "", "object": o}))
	if d.records[0].Pod != "cart-5d4f-" || d.events[0].Name != "cart-5d4f-" {
		t.Errorf("record of %q, event of %q", d.records[0].Pod, d.events[0].Name)
	}
}

func TestAnAdmissionThatCannotBeRecordedIsADenial(t *testing.T) {
	d := newDoor(t, shop(t))
	d.full = true
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(good))), "could not be recorded")
	d = newDoor(t, shop(t), func(o *Options) { o.Shell.AuditFailure = gate.AllowAnyway })
	d.full = true
	wantAllowed(t, d.ask(aReview("CREATE", "Pod", podOf(good))))
}

func TestTheModeOfTheShellIsThatOfTheWebhook(t *testing.T) {
	d := newDoor(t, shop(t), func(o *Options) { o.Shell.Mode, o.Shell.Gate = gate.Audit, "node" })
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(bad))))
	if d.records[0].Gate != GateName || d.records[0].Enforcement != "enforce" {
		t.Errorf("record %+v", d.records[0])
	}
}

func allowAll(_ context.Context, req *verifier.Request) (verifier.Decision, error) {
	return verifier.Refuse(req, verifier.Allowed, verifier.Attested, ""), nil
}

func TestTimeRunningOutErrorsAndPanicsNeverAllow(t *testing.T) {
	tests := map[string]struct {
		v      verify
		reason string
	}{
		"it waits until the time is over": {func(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
			<-ctx.Done()
			return verifier.Decision{}, ctx.Err()
		}, "DeadlineExceeded"},
		"it allows when the time is over": {func(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
			<-ctx.Done()
			return allowAll(ctx, req)
		}, "DeadlineExceeded"},
		"it fails": {func(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
			dec, _ := allowAll(ctx, req)
			return dec, errors.New("token=secret")
		}, "Internal"},
		"it panics": {func(context.Context, *verifier.Request) (verifier.Decision, error) { panic("token=secret") }, "Internal"},
		"it forgets images": {func(ctx context.Context, req *verifier.Request) (verifier.Decision, error) {
			return verifier.Decision{Result: verifier.Allowed, Reason: verifier.Attested}, nil
		}, "Internal"},
		"it says nothing": {func(context.Context, *verifier.Request) (verifier.Decision, error) { return verifier.Decision{}, nil }, "Internal"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, tt.v)
			r := newRequest(aReview("CREATE", "Pod", podOf(good)).json(t))
			r.URL.RawQuery = "timeout=20ms"
			resp := d.answered(d.serve(r))
			wantDenied(t, resp)
			if got := string(resp.Result.Details.Causes[0].Type); got != tt.reason || strings.Contains(resp.Result.Message, "secret") {
				t.Errorf("reason %s, want %s: %s", got, tt.reason, resp.Result.Message)
			}
			if len(d.records) != 1 || d.records[0].Admitted || string(d.records[0].Reason) != tt.reason {
				t.Errorf("records %+v", d.records)
			}
		})
	}
}

func TestWhateverPanicsIsADenial(t *testing.T) {
	d := newDoor(t, shop(t), func(o *Options) { o.Shell.Records = nil })
	resp := d.ask(aReview("CREATE", "Pod", podOf(good)))
	if resp.Allowed || resp.Result.Code != http.StatusInternalServerError || !strings.Contains(d.log.String(), "panic") {
		t.Errorf("%+v, log %s", resp, d.log.String())
	}
}

func TestAReviewHasTheTimeThatTheAPIServerGivesIt(t *testing.T) {
	for query, want := range map[string]string{"": "9s", "timeout=5s": "4.5s", "timeout=x": "9s", "timeout=-1s": "9s", "timeout=10h": "27s", "timeout=20ms": "18ms"} {
		r := newRequest(nil)
		r.URL.RawQuery = query
		if got := timeout(r).String(); got != want {
			t.Errorf("?%s: %s, want %s", query, got, want)
		}
	}
}

func TestPoliciesThatReportWarnOrAreInTheAuditLog(t *testing.T) {
	report := func(name, enforcement, more string) string {
		return gap(name, "attestationAuthorityNames: [release, build], enforcement: "+enforcement+more)
	}
	w := shop(t, authority(t, "build", signer(2)), authority(t, "urgent", signer(3)),
		gap("warn-saved", "attestationAuthorityNames: [build], emergencyAuthorityNames: [urgent], enforcement: Warn"),
		report("warn-all", "Warn", ""), report("warn-any", "Warn", ", require: Any"), report("warn-two", "Warn", ", require: 2"),
		report("audit-all", "Audit", ""), report("audit-one", "Audit", ", require: 1"),
		gap("warn-urgent", "attestationAuthorityNames: [build], emergencyAuthorityNames: [release], enforcement: Warn"))
	urgent := attestUntil(t, signer(3), cart(1), noon.Add(time.Hour))
	w.memory.Replace("folder", evidence.Records{cart(1): {attest(t, signer(1), cart(1)), urgent}})
	d := newDoor(t, w)
	resp := d.ask(aReview("CREATE", "Pod", podOf(good)))
	wantAllowed(t, resp)
	short := repository + "@" + string(cart(1).Digest)[:19]
	var want []string
	for _, p := range []string{"warn-all", "warn-two", "warn-urgent"} {
		want = append(want, "GenericAttestationPolicy shop/"+p+" (Warn) would deny "+short[max(0, len(short)-(120-len("GenericAttestationPolicy shop/"+p+" (Warn) would deny "+": NotAttested"))):]+": NotAttested")
	}
	for i := range want { // the beginning of a long name gives way
		if len(resp.Warnings) != len(want) || len(resp.Warnings[i]) > 120 || !strings.HasPrefix(resp.Warnings[i], want[i][:50]) || !strings.HasSuffix(resp.Warnings[i], "cart@"+string(cart(1).Digest)[:19]+": NotAttested") {
			t.Fatalf("warnings %q, want %q", resp.Warnings, want)
		}
	}
	if got := resp.AuditAnnotations["audit-1"]; got != "GenericAttestationPolicy shop/audit-all (Audit) would deny "+good+": denied, NotAttested: by authority build (NotAttested)" {
		t.Errorf("annotation %q", got)
	}
	if _, ok := resp.AuditAnnotations["audit-2"]; ok || resp.AuditAnnotations["revision"] != w.snap.Revision() {
		t.Errorf("annotations %v", resp.AuditAnnotations)
	}
	if resp := d.ask(aReview("CREATE", "Pod", podOf(bad))); resp.Allowed || len(resp.Warnings) > 0 {
		t.Errorf("of an image that is denied: %+v", resp)
	}
}

func TestReportsAreBounded(t *testing.T) {
	var more []string
	for n := range 60 {
		more = append(more, gap(fmt.Sprintf("%s-%d", strings.Repeat("n", 200), n), "attestationAuthorityNames: [build], enforcement: "+[]string{"Warn", "Audit"}[n%2]))
	}
	resp := newDoor(t, shop(t, append(more, authority(t, "build", signer(2)))...)).ask(aReview("CREATE", "Pod", podOf(good)))
	wantAllowed(t, resp)
	if len(resp.Warnings) != maxWarnings || resp.Warnings[maxWarnings-1] != "and 23 more" || resp.AuditAnnotations["audit-8"] != "and 23 more" {
		t.Errorf("%+v", resp)
	}
}

func TestAnObjectOfTooManyImagesIsDeniedAndMakesOneRecord(t *testing.T) {
	names := make([]string, MaxImages)
	for n := range names {
		names[n] = cart(n).String()
	}
	d := newDoor(t, verify(allowAll))
	wantAllowed(t, d.ask(aReview("CREATE", "Pod", podOf(append(names, names...)...))))
	d = newDoor(t, shop(t))
	wantDenied(t, d.ask(aReview("CREATE", "Pod", podOf(append(names, "one:more")...))), "it names 257 images, at most 256 are decided on")
	if len(d.records) != 1 {
		t.Errorf("%d records", len(d.records))
	}
}

func TestAPodOfTooManyContainersIsNotReadToTheEnd(t *testing.T) {
	d := newDoor(t, verify(allowAll))
	for _, list := range []string{"containers", "initContainers", "ephemeralContainers", "volumes"} {
		for _, element := range []string{`{}`, `null`, `{"image":null}`} {
			of := func(n int) []byte {
				return []byte(spoilt(`"spec":{"containers"`, `"spec":{"`+list+`":[`+strings.Repeat(element+",", n-1)+element+`],"x"`))
			}
			wantAllowed(t, d.answered(d.serve(newRequest(of(maxList)))))
			resp := d.answered(d.serve(newRequest(of(maxList + 1))))
			if resp.Allowed || !strings.Contains(resp.Result.Message, "more than 1024 containers or volumes") {
				t.Errorf("%s of %s: %+v", list, element, resp)
			}
		}
	}
	body := []byte(spoilt(`"alice"`, `"alice","groups":["`+strings.Repeat("g", maxUser)+`"]`))
	if resp := d.answered(d.serve(newRequest(body))); resp.Allowed || !strings.Contains(resp.Result.Message, "are said of the user") {
		t.Errorf("%+v", resp)
	}
}

func TestTheAnswerIsInTheShapeOfTheAPI(t *testing.T) {
	d := newDoor(t, shop(t))
	for _, tt := range []struct{ image, want string }{
		{good, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"705ab4f5","allowed":true,` +
			`"auditAnnotations":{"reason":"Attested","result":"allowed","revision":"REVISION"}}}`},
		{"alpine:3.11", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"705ab4f5","allowed":false,` +
			`"status":{"status":"Failure","message":"image alpine:3.11 is not attested: by authority release (the image is named by a tag; name it by its digest). ` +
			`Write repository@sha256:... in place of the tag","code":403,"details":{"causes":[{"reason":"TagNotResolved","message":"unresolved"}]}},` +
			`"auditAnnotations":{"reason":"TagNotResolved","result":"unresolved","revision":"REVISION"}}}`},
	} {
		w := d.send(aReview("CREATE", "Pod", podOf(tt.image)).json(t))
		want := strings.ReplaceAll(tt.want, "REVISION", shop(t).snap.Revision())
		if w.Body.String() != want {
			t.Errorf("got  %s\nwant %s", w.Body, want)
		}
		// What the API's own types make of it says the same.
		resp := d.answered(w)
		again, err := json.Marshal(resp)
		if err != nil {
			t.Fatal(err)
		}
		var a, b map[string]any
		var whole struct{ Response json.RawMessage }
		if err := errors.Join(json.Unmarshal([]byte(want), &whole), json.Unmarshal(whole.Response, &a), json.Unmarshal(again, &b)); err != nil {
			t.Fatal(err)
		}
		if s, ok := b["status"].(map[string]any); ok {
			delete(s, "metadata")
		}
		if x, y := fmt.Sprint(a), fmt.Sprint(b); x != y {
			t.Errorf("got  %s\nwant %s", x, y)
		}
	}
}

func TestImagesOfAnObjectAreThoseOfThePodInItsOrder(t *testing.T) {
	pod := podOf("b:1", "a:1", "b:1")
	pod["initContainers"] = []m{{"image": "i:1"}}
	pod["ephemeralContainers"] = []m{{"image": "e:1"}}
	pod["volumes"] = []m{{"image": m{"reference": "v:1"}}, {"image": m{}}, {"configMap": m{}}}
	for _, k := range kinds {
		data, err := json.Marshal(anObject(k.kind, pod))
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"i:1", "b:1", "a:1", "e:1", "v:1"}
		if k.kind == "Pod" {
			want = append(want, "") // a template may leave the reference of a volume to others, a pod may not
		}
		if got, err := imagesRead(k.Resource, data); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", k.kind, got, err, want)
		}
	}
	if _, _, ok := workload(Resource{"", "v1", "configmaps"}); ok {
		t.Error("a ConfigMap is taken for one")
	}
}

// imagesRead are those of an object of a resource, in the order of the pod.
func imagesRead(r Resource, data []byte) ([]string, error) {
	kind, at, ok := workload(r)
	if !ok {
		return nil, fmt.Errorf("%s has no images", r)
	}
	_, all, err := read(kind, at, data)
	return all.once(), err
}

func TestReviewsAreAnsweredBesideEachOther(t *testing.T) {
	d := newDoor(t, shop(t))
	wantAllowed(t, d.ask(aReview("CREATE", "Pod", podOf(good)))) // the signature is known from here on
	server := httptest.NewServer(d)
	defer server.Close()
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			for i := range 10 {
				name, uid := []string{good, bad}[(n+i)%2], fmt.Sprintf("%d-%d", n, i)
				body := aReview("CREATE", "Pod", podOf(name)).with(review{"uid": uid}).json(t)
				r, err := http.Post(server.URL+"/?timeout=10s", "application/json", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				answer, err := io.ReadAll(r.Body)
				r.Body.Close()
				resp, err2 := readAnswer(answer)
				if err != nil || err2 != nil || string(resp.UID) != uid || resp.Allowed != (name == good) {
					t.Errorf("%s %s: %v %v %s", uid, name, err, err2, answer)
				}
			}
		})
	}
	all.Wait()
	if len(d.records) != 161 || len(d.events) != 80 {
		t.Errorf("%d records and %d events", len(d.records), len(d.events))
	}
}
