package admission

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	strictjson "sigs.k8s.io/json"

	"github.com/horkos/horkos/verifier"
)

// FuzzReview sends arbitrary bodies to a handler whose verifier denies all. Nothing panics,
// every answer is one of the API, and what the API's own types read as the creation of a
// workload, or as an update of its images, is never allowed, unless a node tells of a static
// pod. What is asked about an object is at least the images that those types find in it.
func FuzzReview(f *testing.F) {
	for _, bodies := range []map[string]string{unanswerable(), misread(), odd()} {
		for name, body := range bodies {
			if name != "an image without end" {
				f.Add([]byte(body))
			}
		}
	}
	for _, k := range kinds {
		pod := podOf(good, "alpine:3.11")
		pod["initContainers"], pod["volumes"] = []m{{"image": "i:1"}}, []m{{"name": "v", "image": m{"reference": "v:1"}}}
		f.Add(aReview("CREATE", k.kind, pod).json(f))
		f.Add(aReview("UPDATE", k.kind, pod).with(review{"oldObject": anObject(k.kind, podOf(good))}).json(f))
	}
	mirror := anObject("Pod", podOf(bad))
	mirror["metadata"].(m)["annotations"], mirror["spec"].(m)["nodeName"] = m{mirrorAnnotation: "x"}, "n1"
	f.Add(aReview("UPDATE", "Pod", nil).with(review{"object": mirror, "oldObject": mirror}).json(f))
	f.Add(aReview("UPDATE", "Pod", podOf(bad)).with(review{"oldObject": mirror}).json(f))
	f.Add(aReview("CREATE", "Pod", nil).with(review{"object": mirror, "userInfo": m{"username": "system:node:n1", "groups": []string{"system:nodes"}}}).json(f))

	f.Fuzz(func(t *testing.T, body []byte) {
		var asked []string
		d := newDoor(t, verify(func(_ context.Context, req *verifier.Request) (verifier.Decision, error) {
			for i := range req.Images {
				asked = append(asked, req.Images[i].Written)
			}
			return verifier.Refuse(req, verifier.Denied, verifier.NotAttested, ""), nil
		}))
		w := d.send(body)
		if w.Code != http.StatusOK {
			if w.Code != http.StatusBadRequest {
				t.Errorf("HTTP %d", w.Code)
			}
			return
		}
		resp, err := readAnswer(w.Body.Bytes())
		if err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		if strings.Contains(d.log.String(), "panic") {
			t.Fatal(d.log.String())
		}
		names, ours := imagesByTheAPI(body)
		if !ours {
			return
		}
		if resp.Allowed && !(len(d.records) > 0 && d.records[0].Static) {
			t.Errorf("allowed: %s", body)
		}
		if asked == nil {
			return // refused before anybody was asked
		}
		for _, name := range names {
			if !slices.Contains(asked, name) && len(names) <= MaxImages {
				t.Errorf("image %q was not asked about: %q", name, asked)
			}
		}
	})
}

// imagesByTheAPI reads a body with the API's own types: the images of what is created, or
// updated so that they are others, and whether anything is.
func imagesByTheAPI(body []byte) (images []string, ours bool) {
	var a admissionv1.AdmissionReview
	if err := strictjson.UnmarshalCaseSensitivePreserveInts(body, &a); err != nil || a.Request == nil || a.Request.SubResource != "" {
		return nil, false
	}
	resource := a.Request.Resource.Group + "/" + a.Request.Resource.Resource
	switch a.Request.Operation {
	case admissionv1.Create:
		return imagesOf(resource, a.Request.Object.Raw)
	case admissionv1.Update:
		images, ours = imagesOf(resource, a.Request.Object.Raw)
		old, _ := imagesOf(resource, a.Request.OldObject.Raw)
		return images, ours && !slices.Equal(slices.Sorted(slices.Values(old)), slices.Sorted(slices.Values(images)))
	}
	return nil, false
}

func imagesOf(resource string, raw []byte) (images []string, ours bool) {
	var pod corev1.PodSpec
	var err error
	switch resource {
	case "/pods":
		pod, err = specOf(raw, func(o *corev1.Pod) corev1.PodSpec { return o.Spec })
	case "/replicationcontrollers":
		pod, err = specOf(raw, func(o *corev1.ReplicationController) corev1.PodSpec {
			if o.Spec.Template == nil {
				return corev1.PodSpec{}
			}
			return o.Spec.Template.Spec
		})
	case "apps/deployments":
		pod, err = specOf(raw, func(o *appsv1.Deployment) corev1.PodSpec { return o.Spec.Template.Spec })
	case "apps/replicasets":
		pod, err = specOf(raw, func(o *appsv1.ReplicaSet) corev1.PodSpec { return o.Spec.Template.Spec })
	case "apps/statefulsets":
		pod, err = specOf(raw, func(o *appsv1.StatefulSet) corev1.PodSpec { return o.Spec.Template.Spec })
	case "apps/daemonsets":
		pod, err = specOf(raw, func(o *appsv1.DaemonSet) corev1.PodSpec { return o.Spec.Template.Spec })
	case "batch/jobs":
		pod, err = specOf(raw, func(o *batchv1.Job) corev1.PodSpec { return o.Spec.Template.Spec })
	case "batch/cronjobs":
		pod, err = specOf(raw, func(o *batchv1.CronJob) corev1.PodSpec { return o.Spec.JobTemplate.Spec.Template.Spec })
	default:
		return nil, false
	}
	if err != nil {
		return nil, true
	}
	for _, list := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for _, c := range list {
			images = append(images, c.Image)
		}
	}
	for _, c := range pod.EphemeralContainers {
		images = append(images, c.Image)
	}
	for _, v := range pod.Volumes {
		if v.Image != nil && v.Image.Reference != "" {
			images = append(images, v.Image.Reference)
		}
	}
	return images, true
}

func specOf[T any](raw json.RawMessage, get func(*T) corev1.PodSpec) (corev1.PodSpec, error) {
	var o T
	if err := strictjson.UnmarshalCaseSensitivePreserveInts(raw, &o); err != nil {
		return corev1.PodSpec{}, err
	}
	return get(&o), nil
}
