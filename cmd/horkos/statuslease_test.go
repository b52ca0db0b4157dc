package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/horkos/horkos/apiserver"
)

// cluster answers as an API server: of a path an answer, of a collection that is empty none is
// needed, and what begins with an absent path is not there.
func cluster(t *testing.T, answers map[string]string, absent ...string) apiserver.Clients {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, path := range absent {
			if strings.HasPrefix(r.URL.Path, path) {
				refuse(w, http.StatusNotFound, "NotFound")
				return
			}
		}
		switch answer := answers[r.URL.Path]; answer {
		case "":
			if r.URL.Path == configurationPath || strings.HasSuffix(r.URL.Path, "/horkos-webhook") {
				refuse(w, http.StatusNotFound, "NotFound")
				return
			}
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":"1"},"items":[]}`)
		case "Forbidden":
			refuse(w, http.StatusForbidden, answer)
		case "InternalError":
			refuse(w, http.StatusInternalServerError, answer)
		default:
			fmt.Fprint(w, answer)
		}
	}))
	t.Cleanup(server.Close)
	clients, err := apiserver.Connect(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

func refuse(w http.ResponseWriter, code int, reason string) {
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":%q,"code":%d}`, reason, code)
}

const (
	leasePath  = "/apis/coordination.k8s.io/v1/namespaces/elsewhere/leases/horkos-controller"
	kritisPath = "/apis/kritis.grafeas.io"
)

func TestTheLeaseTellsWhetherTheControllerRunsUnlessItMayNotBeRead(t *testing.T) {
	const lease = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"horkos-controller","namespace":"elsewhere"},"spec":{"holderIdentity":"r1","leaseDurationSeconds":15,"renewTime":"2026-11-21T11:59:58.123456Z"}}`
	for _, tt := range []struct {
		name    string
		answers map[string]string
		absent  []string
		ready   bool
		want    string
	}{
		{"one that is renewed", map[string]string{leasePath: lease}, nil, true, "running, the leader is r1"},
		{"one that is not there", nil, []string{leasePath}, false, "kubectl -n elsewhere get pods"},
		{"one that may not be read", map[string]string{leasePath: "Forbidden"}, nil, true, "not known: you may not read the Lease horkos-controller in the namespace elsewhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clients := cluster(t, tt.answers, tt.absent...)
			all, err := list(t.Context(), clients, "elsewhere")
			if err != nil {
				t.Fatal(err)
			}
			if all.lease, err = readLease(t.Context(), clients, "elsewhere", statusNow); err != nil {
				t.Fatal(err)
			}
			if s := stateOf(all, statusNow); s.Ready != tt.ready || !strings.Contains(s.Controller.text(), tt.want) {
				t.Errorf("ready %v, %s", s.Ready, s.Controller.text())
			}
		})
	}
	if _, err := list(t.Context(), cluster(t, map[string]string{leasePath: "InternalError"}), "elsewhere"); err == nil {
		t.Error("that nobody knows is no error")
	}
	before := leaseSeen{namespace: "elsewhere", at: statusNow, leader: "r1", renewed: statusNow}
	if after := before.again(t.Context(), cluster(t, map[string]string{leasePath: "InternalError"})); after != before {
		t.Errorf("a Lease that cannot be read for once is %+v", after)
	}
}

func TestAKindThatIsMissingHidesNothingElse(t *testing.T) {
	all, err := list(t.Context(), cluster(t, nil, kritisPath+"/v1beta1/genericattestationpolicies"), "elsewhere")
	if err != nil || len(all.absent) != 1 || len(all.objects) != len(statusResources())-1 {
		t.Fatalf("%v, absent %v", err, all.absent)
	}
	if got := stateOf(all, statusNow).NotServed; fmt.Sprint(got) != "[GenericAttestationPolicy]" {
		t.Errorf("not served: %v", got)
	}
	if _, err := list(t.Context(), cluster(t, nil, kritisPath, "/apis/horkos.dev", "/apis/notation.nirmata.io"), "elsewhere"); err != errNotInstalled {
		t.Errorf("without any kind: %v", err)
	}
}
