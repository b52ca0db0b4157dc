package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/horkos/horkos/controller"
	"github.com/horkos/horkos/crds/horkos"
)

// silence is after how long without a word from a gate nothing can be said of it any more.
const silence = 15 * time.Minute

// reasonNotJudged is that of objects that the controller has not looked at.
const reasonNotJudged = "NotJudged"

// reasonNotServed is that of kinds that the API server does not know.
const reasonNotServed = "NotServed"

// clusterState is what status prints as JSON.
type clusterState struct {
	Time       time.Time       `json:"time"`
	Ready      bool            `json:"ready"`
	Revision   string          `json:"revision"` // that of most gates; empty without any
	Nodes      []nodeState     `json:"nodes"`
	Controller controllerState `json:"controller"`
	Webhook    webhookState    `json:"webhook"`
	Kinds      []kindState     `json:"kinds"`
	NotServed  []string        `json:"notServed"` // kinds that the API server does not know
	Objects    []objectState   `json:"objects"`
	// Revocations and RevokedDigests count what is withdrawn.
	Revocations    int `json:"revocations"`
	RevokedDigests int `json:"revokedDigests"`
}

// nodeState is a node, and what its gate says.
type nodeState struct {
	Name           string    `json:"name"`
	Gated          bool      `json:"gated"` // it has a NodeGate
	Mode           string    `json:"mode"`
	Ready          bool      `json:"ready"`
	Revision       string    `json:"revision"`
	RevisionOfMost bool      `json:"revisionOfMost"`
	SyncedAt       time.Time `json:"syncedAt,omitzero"`
	SyncedAgo      int64     `json:"syncedAgeSeconds"`
	Version        string    `json:"version"`
	RuntimeVersion string    `json:"runtimeVersion"`
	Problems       []string  `json:"problems"`
}

// kindState counts the objects of a kind.
type kindState struct {
	Kind     string `json:"kind"`
	Objects  int    `json:"objects"`
	Ready    int    `json:"ready"`
	Warnings int    `json:"warnings"`
}

// objectState is an object and its conditions.
type objectState struct {
	Kind           string `json:"kind"`
	Namespace      string `json:"namespace"`
	Name           string `json:"name"`
	Ready          bool   `json:"ready"`
	Reason         string `json:"reason"`
	Message        string `json:"message"`
	Warning        string `json:"warning"`
	WarningMessage string `json:"warningMessage"`
}

// stateOf puts together what is known of a cluster at a time.
func stateOf(all listing, now time.Time) clusterState {
	s := clusterState{Time: now.UTC().Truncate(time.Second), Ready: true, Nodes: []nodeState{}, Kinds: []kindState{}, NotServed: []string{}, Objects: []objectState{}}
	if all.absent[controller.NodeGates()] {
		s.NotServed = append(s.NotServed, horkos.KindNodeGate)
	}
	s.readNodes(all, now)
	s.Controller, s.Webhook = all.lease.state(), all.webhook
	for _, k := range controller.Kinds() {
		if all.absent[k.Resource] {
			s.NotServed = append(s.NotServed, k.Name)
			continue
		}
		count := kindState{Kind: k.Name}
		for _, object := range all.objects[k.Resource] {
			u, ok := object.(*unstructured.Unstructured)
			if !ok {
				continue
			}
			o := objectOf(k, u, s.Controller)
			count.Objects++
			if o.Ready {
				count.Ready++
			} else {
				s.Ready = false
			}
			if o.Warning != "" {
				count.Warnings++
			}
			if k.Name == horkos.KindImageRevocation {
				digests, _, _ := unstructured.NestedSlice(u.Object, "spec", "digests")
				s.Revocations++
				s.RevokedDigests += len(digests)
			}
			s.Objects = append(s.Objects, o)
		}
		s.Kinds = append(s.Kinds, count)
	}
	s.Ready = s.Ready && len(s.NotServed) == 0 && (s.Controller.Running || !s.Controller.Known) && len(s.Webhook.Problems) == 0
	return s
}

// notServed tells of a kind that the API server does not know.
func notServed(kind string) string {
	then := "nodes keep the last ones in force"
	if kind == horkos.KindNodeGate {
		then = "nodes gate as before, and cannot tell how they are"
	}
	return "the API server does not know the kind: kubectl apply -k crds/manifests; " + then
}

// objectOf reads the conditions of an object. Those of an older generation say nothing.
func objectOf(k controller.Kind, u *unstructured.Unstructured, by controllerState) objectState {
	status := controller.StatusOf(u)
	ready, warning := status.Condition(controller.Ready), status.Condition(controller.Warning)
	o := objectState{Kind: k.Name, Namespace: u.GetNamespace(), Name: u.GetName()}
	if ready.Status == "" || ready.ObservedGeneration != u.GetGeneration() {
		o.Reason, o.Message = reasonNotJudged, "horkos controller has not looked at it: does it run? "+askForPods(by.Namespace)
		if by.Running {
			o.Message = "horkos controller has not looked at it yet: look again in a few seconds"
		}
		return o
	}
	o.Ready, o.Reason, o.Message = ready.Status == metav1.ConditionTrue, ready.Reason, ready.Message
	if warning.Status == metav1.ConditionTrue {
		o.Warning, o.WarningMessage = warning.Reason, warning.Message
	}
	return o
}

// gateStatus is the status of a NodeGate.
type gateStatus struct {
	Mode           string      `json:"mode"`
	Version        string      `json:"version"`
	RuntimeVersion string      `json:"runtimeVersion"`
	PolicyRevision string      `json:"policyRevision"`
	SyncedAt       metav1.Time `json:"syncedAt"`
	ObservedAt     metav1.Time `json:"observedAt"`
	Ready          bool        `json:"ready"`
	Problems       []string    `json:"problems"`
}

func (s *clusterState) readNodes(all listing, now time.Time) {
	gates := make(map[string]*unstructured.Unstructured)
	for _, g := range all.objects[controller.NodeGates()] {
		if u, ok := g.(*unstructured.Unstructured); ok {
			gates[g.GetName()] = u
		}
	}
	revisions := make(map[string]int)
	for _, n := range all.objects[controller.Nodes()] {
		node := nodeState{Name: n.GetName(), Problems: []string{}}
		switch g := gates[n.GetName()]; {
		case g != nil:
			node.read(g, now)
			if node.Revision != "" {
				revisions[node.Revision]++
			}
		case all.absent[controller.NodeGates()]:
			node.Problems = append(node.Problems, "not known: the API server does not know the kind NodeGate")
		default:
			node.Problems = append(node.Problems, "ungated: there is no NodeGate of it; horkos-node does not run there, or was not told of the cluster")
		}
		s.Ready = s.Ready && node.Ready
		s.Nodes = append(s.Nodes, node)
	}
	for r, n := range revisions {
		if most := revisions[s.Revision]; n > most || (n == most && r < s.Revision) {
			s.Revision = r
		}
	}
	for i := range s.Nodes {
		s.Nodes[i].RevisionOfMost = s.Nodes[i].Revision != "" && s.Nodes[i].Revision == s.Revision
	}
}

// read takes what a gate says, unless it has been silent for too long.
func (n *nodeState) read(gate *unstructured.Unstructured, now time.Time) {
	n.Gated = true
	var status gateStatus
	text, err := json.Marshal(gate.Object["status"])
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	if err != nil {
		n.Problems = append(n.Problems, "its NodeGate cannot be read: "+err.Error())
		return
	}
	n.Mode, n.Version, n.RuntimeVersion, n.Revision = status.Mode, status.Version, status.RuntimeVersion, status.PolicyRevision
	n.Ready, n.Problems = status.Ready, append(n.Problems, status.Problems...)
	if !status.SyncedAt.IsZero() {
		n.SyncedAt = status.SyncedAt.UTC()
		n.SyncedAgo = max(0, int64(now.Sub(n.SyncedAt).Seconds()))
	}
	last := status.ObservedAt.Time
	if last.Before(status.SyncedAt.Time) {
		last = status.SyncedAt.Time
	}
	switch {
	case last.IsZero():
		n.Ready = false
		n.Problems = append(n.Problems, "its gate has not said anything yet")
	case now.Sub(last) > silence:
		n.Ready = false
		n.Problems = append(n.Problems, "its gate was last heard "+ago(now.Sub(last))+": does horkos-node run, and does it reach the API server?")
	}
}

// revision is how the revision of a node is printed.
func (n nodeState) revision() string {
	if n.Revision != "" && !n.RevisionOfMost {
		return n.Revision + " (others differ)"
	}
	return dash(n.Revision)
}

// synced is how the age of a node's policies is printed.
func (n nodeState) synced() string {
	if n.SyncedAt.IsZero() {
		return "-"
	}
	return ago(time.Duration(n.SyncedAgo) * time.Second)
}

// ago is how long ago something was.
func ago(d time.Duration) string { return span(d) + " ago" }

// span is a duration as people say it.
func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// summary is all of it in a line.
func (s clusterState) summary() string {
	var ready, gated, differ, objects, objectsReady, warnings int
	for _, n := range s.Nodes {
		if n.Ready {
			ready++
		}
		if n.Gated {
			gated++
		}
		if n.Revision != "" && !n.RevisionOfMost {
			differ++
		}
	}
	for _, k := range s.Kinds {
		objects, objectsReady, warnings = objects+k.Objects, objectsReady+k.Ready, warnings+k.Warnings
	}
	word := "not ready"
	if s.Ready {
		word = "ready"
	}
	parts := []string{fmt.Sprintf("%s: %d of %s ready", word, ready, plural(len(s.Nodes), "node"))}
	if ungated := len(s.Nodes) - gated; ungated > 0 && !slices.Contains(s.NotServed, horkos.KindNodeGate) {
		parts = append(parts, fmt.Sprintf("%d ungated", ungated))
	}
	if differ > 0 {
		parts = append(parts, fmt.Sprintf("%d with other policies than most", differ))
	}
	if s.Controller.Known && !s.Controller.Running {
		parts = append(parts, "controller not running")
	}
	if len(s.Webhook.Problems) > 0 {
		parts = append(parts, "webhook not as it should be")
	}
	if len(s.NotServed) > 0 {
		parts = append(parts, plural(len(s.NotServed), "kind")+" not served")
	}
	parts = append(parts, fmt.Sprintf("%d of %s ready", objectsReady, plural(objects, "object")), plural(warnings, "warning"),
		fmt.Sprintf("%s of %s", plural(s.Revocations, "revocation"), plural(s.RevokedDigests, "digest")))
	return strings.Join(parts, ", ")
}

// same tells whether two states differ in nothing but time.
func (s clusterState) same(other clusterState) bool {
	text := func(s clusterState) string {
		s.Time = time.Time{}
		s.Controller.RenewedAt, s.Controller.RenewedAgo = time.Time{}, 0
		s.Nodes = slices.Clone(s.Nodes)
		for i := range s.Nodes {
			s.Nodes[i].SyncedAt, s.Nodes[i].SyncedAgo = time.Time{}, 0
		}
		data, err := json.Marshal(s)
		return cmp.Or(string(data), fmt.Sprint(err))
	}
	return text(s) == text(other)
}
