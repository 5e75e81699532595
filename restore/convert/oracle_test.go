package convert_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"kedge.dev/kedge/restore/convert"
)

// The oracle is Kubernetes' own conversion code (testdata/oracle, a module of its own): it makes random objects, writes
// them in an old version, and says what a server of 1.24 or 1.36 reads them as in the new one.

type oraclePair struct {
	In   json.RawMessage `json:"in"`
	To   string          `json:"to"`
	Want json.RawMessage `json:"want,omitempty"`
	Err  string          `json:"err,omitempty"`
}

// oracleKinds are from, kind, to; forward for all versions that the oracle's Kubernetes still has code for.
var oracleKinds = map[string][]string{
	"KEDGE_ORACLE_124": {
		"extensions/v1beta1,Deployment,apps/v1", "apps/v1beta1,Deployment,apps/v1", "apps/v1beta2,Deployment,apps/v1",
		"extensions/v1beta1,DaemonSet,apps/v1", "apps/v1beta2,DaemonSet,apps/v1",
		"extensions/v1beta1,ReplicaSet,apps/v1", "apps/v1beta2,ReplicaSet,apps/v1",
		"apps/v1beta1,StatefulSet,apps/v1", "apps/v1beta2,StatefulSet,apps/v1",
		"apps/v1beta1,ControllerRevision,apps/v1", "apps/v1beta2,ControllerRevision,apps/v1",
		"batch/v1beta1,CronJob,batch/v1",
		"extensions/v1beta1,Ingress,networking.k8s.io/v1", "networking.k8s.io/v1beta1,Ingress,networking.k8s.io/v1",
		"networking.k8s.io/v1,Ingress,networking.k8s.io/v1beta1", "networking.k8s.io/v1beta1,IngressClass,networking.k8s.io/v1",
		"extensions/v1beta1,NetworkPolicy,networking.k8s.io/v1",
		"discovery.k8s.io/v1beta1,EndpointSlice,discovery.k8s.io/v1", "discovery.k8s.io/v1,EndpointSlice,discovery.k8s.io/v1beta1",
		"policy/v1beta1,PodDisruptionBudget,policy/v1", "policy/v1,PodDisruptionBudget,policy/v1beta1",
		"autoscaling/v1,HorizontalPodAutoscaler,autoscaling/v2", "autoscaling/v2beta1,HorizontalPodAutoscaler,autoscaling/v2",
		"autoscaling/v2beta2,HorizontalPodAutoscaler,autoscaling/v2", "autoscaling/v2,HorizontalPodAutoscaler,autoscaling/v1",
		"autoscaling/v2,HorizontalPodAutoscaler,autoscaling/v2beta1", "autoscaling/v2,HorizontalPodAutoscaler,autoscaling/v2beta2",
		"autoscaling/v2beta1,HorizontalPodAutoscaler,autoscaling/v2beta2",
		"admissionregistration.k8s.io/v1beta1,ValidatingWebhookConfiguration,admissionregistration.k8s.io/v1",
		"admissionregistration.k8s.io/v1beta1,MutatingWebhookConfiguration,admissionregistration.k8s.io/v1",
		"rbac.authorization.k8s.io/v1beta1,Role,rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1alpha1,ClusterRole,rbac.authorization.k8s.io/v1",
		"rbac.authorization.k8s.io/v1alpha1,RoleBinding,rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1beta1,ClusterRoleBinding,rbac.authorization.k8s.io/v1",
		"certificates.k8s.io/v1beta1,CertificateSigningRequest,certificates.k8s.io/v1",
		"storage.k8s.io/v1beta1,StorageClass,storage.k8s.io/v1", "storage.k8s.io/v1beta1,CSIDriver,storage.k8s.io/v1",
		"storage.k8s.io/v1beta1,CSINode,storage.k8s.io/v1", "storage.k8s.io/v1beta1,CSIStorageCapacity,storage.k8s.io/v1",
		"storage.k8s.io/v1beta1,VolumeAttachment,storage.k8s.io/v1", "storage.k8s.io/v1alpha1,VolumeAttachment,storage.k8s.io/v1",
		"node.k8s.io/v1alpha1,RuntimeClass,node.k8s.io/v1", "node.k8s.io/v1beta1,RuntimeClass,node.k8s.io/v1", "node.k8s.io/v1,RuntimeClass,node.k8s.io/v1alpha1",
		"scheduling.k8s.io/v1beta1,PriorityClass,scheduling.k8s.io/v1", "scheduling.k8s.io/v1alpha1,PriorityClass,scheduling.k8s.io/v1",
		"coordination.k8s.io/v1beta1,Lease,coordination.k8s.io/v1", "events.k8s.io/v1beta1,Event,events.k8s.io/v1",
	},
	"KEDGE_ORACLE_136": {
		"flowcontrol.apiserver.k8s.io/v1beta1,FlowSchema,flowcontrol.apiserver.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1beta3,FlowSchema,flowcontrol.apiserver.k8s.io/v1",
		"flowcontrol.apiserver.k8s.io/v1beta1,PriorityLevelConfiguration,flowcontrol.apiserver.k8s.io/v1",
		"flowcontrol.apiserver.k8s.io/v1beta2,PriorityLevelConfiguration,flowcontrol.apiserver.k8s.io/v1",
		"flowcontrol.apiserver.k8s.io/v1beta3,PriorityLevelConfiguration,flowcontrol.apiserver.k8s.io/v1",
		"flowcontrol.apiserver.k8s.io/v1,PriorityLevelConfiguration,flowcontrol.apiserver.k8s.io/v1beta3",
		"flowcontrol.apiserver.k8s.io/v1,PriorityLevelConfiguration,flowcontrol.apiserver.k8s.io/v1beta2",
		"admissionregistration.k8s.io/v1beta1,ValidatingAdmissionPolicy,admissionregistration.k8s.io/v1",
		"admissionregistration.k8s.io/v1alpha1,ValidatingAdmissionPolicyBinding,admissionregistration.k8s.io/v1",
		"admissionregistration.k8s.io/v1alpha1,MutatingAdmissionPolicy,admissionregistration.k8s.io/v1",
		"admissionregistration.k8s.io/v1beta1,MutatingAdmissionPolicyBinding,admissionregistration.k8s.io/v1",
		"admissionregistration.k8s.io/v1alpha1,MutatingAdmissionPolicyBinding,admissionregistration.k8s.io/v1",
		"admissionregistration.k8s.io/v1alpha1,ValidatingAdmissionPolicy,admissionregistration.k8s.io/v1",
		"networking.k8s.io/v1beta1,IPAddress,networking.k8s.io/v1", "networking.k8s.io/v1beta1,ServiceCIDR,networking.k8s.io/v1",
		"resource.k8s.io/v1beta1,DeviceClass,resource.k8s.io/v1", "resource.k8s.io/v1beta2,ResourceClaim,resource.k8s.io/v1",
		"resource.k8s.io/v1beta1,ResourceClaim,resource.k8s.io/v1", "resource.k8s.io/v1,ResourceClaim,resource.k8s.io/v1beta1",
		"resource.k8s.io/v1beta1,ResourceClaimTemplate,resource.k8s.io/v1", "resource.k8s.io/v1beta1,ResourceSlice,resource.k8s.io/v1",
		"resource.k8s.io/v1,ResourceSlice,resource.k8s.io/v1beta1",
		"storage.k8s.io/v1alpha1,VolumeAttributesClass,storage.k8s.io/v1", "storage.k8s.io/v1beta1,VolumeAttributesClass,storage.k8s.io/v1",
		"storage.k8s.io/v1alpha1,CSIStorageCapacity,storage.k8s.io/v1",
		"autoscaling/v1,HorizontalPodAutoscaler,autoscaling/v2", "autoscaling/v2,HorizontalPodAutoscaler,autoscaling/v1",
		"policy/v1beta1,PodDisruptionBudget,policy/v1",
	},
}

func TestOracle(t *testing.T) {
	n := 30
	if s := os.Getenv("KEDGE_ORACLE_COUNT"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	for env, kinds := range oracleKinds {
		binary := os.Getenv(env)
		if binary == "" {
			t.Logf("%s names no oracle (build testdata/oracle); its kinds are not compared", env)
			continue
		}
		for _, spec := range kinds {
			t.Run(strings.TrimPrefix(env, "KEDGE_")+"/"+strings.ReplaceAll(spec, "/", "_"), func(t *testing.T) {
				compareWithOracle(t, binary, spec, n)
			})
		}
	}
}

func compareWithOracle(t *testing.T, binary, spec string, n int) {
	t.Helper()
	pairs := runOracle(t, binary, nil, "-mode", "generate", "-n", strconv.Itoa(n), spec)
	to, _ := schema.ParseGroupVersion(pairs[0].To)
	random := rand.New(rand.NewPCG(1, 2))
	var got, want []oraclePair
	for _, p := range pairs {
		if p.Err != "" {
			continue
		}
		var obj map[string]any
		if err := utiljson.Unmarshal(p.In, &obj); err != nil {
			t.Fatal(err)
		}
		for key, v := range obj {
			// What is older than the best version may come from a manifest; only a server's complete object is written backwards.
			if key != "metadata" && key != "status" && !isBest(obj) {
				thin(random, v)
			}
		}
		knownDifferences(obj)
		p.In, _ = utiljson.Marshal(obj)
		_, err := convert.Convert(obj, to)
		if errors.Is(err, convert.ErrNoSuccessor) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := utiljson.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, oraclePair{In: raw, To: p.To})
		want = append(want, p)
	}
	if len(got) < n/4 {
		t.Fatalf("only %d of %d random objects could be compared", len(got), n)
	}
	// Both go through the oracle once more, so that defaults of the new version are in both.
	got = runOracle(t, binary, got, "-mode", "convert")
	want = runOracle(t, binary, twice(t, binary, want), "-mode", "convert")
	for i := range got {
		if got[i].Err != "" {
			t.Fatalf("the oracle cannot read ours: %s\nin:  %s\nout: %s", got[i].Err, pairs[i].In, got[i].In)
		}
		if diff := cmp.Diff(parsed(t, want[i].Want), parsed(t, got[i].Want)); diff != "" {
			t.Fatalf("(-Kubernetes +Kedge)\n%s", diff)
		}
	}
}

// twice converts the (adjusted) input with the oracle, and gives the result as input.
func twice(t *testing.T, binary string, pairs []oraclePair) []oraclePair {
	t.Helper()
	out := runOracle(t, binary, pairs, "-mode", "convert")
	for i := range out {
		if out[i].Err != "" {
			t.Fatal(out[i].Err)
		}
		out[i].In = out[i].Want
	}
	return out
}

// isBest says whether the object is in the version that its kind's others are converted to: the stable, newest one.
func isBest(obj map[string]any) bool {
	gv, _ := schema.ParseGroupVersion(obj["apiVersion"].(string))
	return gv.Version == "v2" || gv.Version == "v1" && gv.Group != "autoscaling"
}

// thin leaves out fields at random, as people do, and empties some: the generator writes all defaults out.
func thin(r *rand.Rand, v any) {
	switch x := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(x)) {
			switch r.IntN(12) {
			case 0, 1:
				delete(x, key)
			case 2:
				if _, ok := x[key].(map[string]any); ok {
					x[key] = map[string]any{}
				}
			default:
				thin(r, x[key])
			}
		}
	case []any:
		for _, e := range x {
			thin(r, e)
		}
	}
}

// knownDifferences removes from a random object what Kedge converts otherwise on purpose: see docs/conversion.md.
func knownDifferences(obj map[string]any) {
	spec, _ := obj["spec"].(map[string]any)
	delete(spec, "rollbackTo") // dropped; the servers keep it in an annotation
	if actions, _ := spec["validationActions"].([]any); obj["kind"] == "ValidatingAdmissionPolicyBinding" && len(actions) == 0 {
		spec["validationActions"] = []any{"Deny"} // what a binding without did; later versions ask for it
	}
	webhooks, _ := obj["webhooks"].([]any)
	for i, w := range webhooks {
		hook, _ := w.(map[string]any)
		hook["sideEffects"] = "None" // v1 refuses the others
		hook["name"] = "hook-" + strconv.Itoa(i) + ".example.com"
	}
}

func parsed(t *testing.T, raw []byte) any {
	t.Helper()
	var obj map[string]any
	if err := utiljson.Unmarshal(raw, &obj); err != nil {
		t.Fatal(err)
	}
	// The behavior annotation holds JSON; its text may differ in the order of fields.
	if meta, ok := obj["metadata"].(map[string]any); ok {
		annotations, _ := meta["annotations"].(map[string]any)
		for k, v := range annotations {
			s, _ := v.(string)
			var inner any
			if strings.HasPrefix(k, "autoscaling.alpha.kubernetes.io/") && utiljson.Unmarshal([]byte(s), &inner) == nil {
				annotations[k] = inner
			}
		}
	}
	return obj
}

func runOracle(t *testing.T, binary string, in []oraclePair, args ...string) []oraclePair {
	t.Helper()
	var stdin bytes.Buffer
	enc := json.NewEncoder(&stdin)
	for _, p := range in {
		if err := enc.Encode(p); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Stdin, cmd.Stderr = &stdin, os.Stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("run %s: %v", binary, err)
	}
	var out []oraclePair
	for dec := json.NewDecoder(bytes.NewReader(stdout)); ; {
		var p oraclePair
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		t.Fatal("the oracle said nothing")
	}
	return out
}

// otherwise are pairs that Kedge converts better than Kubernetes on purpose.
var otherwise = map[string]string{
	"autoscaler-v2beta1-better": "Kubernetes 1.24 loses the container's name and keeps a value that autoscaling/v2 refuses",
	"level-to-v1beta2-zero":     "Kubernetes reads the default of 30 shares for none; Kedge writes 1",
}

// TestOraclePairs asks the oracle about the pairs of testdata that it knows the versions of.
func TestOraclePairs(t *testing.T) {
	checked := map[string]bool{}
	for env, known := range map[string]string{"KEDGE_ORACLE_124": "extensions/ apps/ batch/v1 autoscaling/v1 autoscaling/v2beta networking.k8s.io/v1 policy/ discovery.k8s.io/ admissionregistration.k8s.io/v1beta1 rbac.authorization.k8s.io/ node.k8s.io/ storage.k8s.io/v1beta1 scheduling.k8s.io/ coordination.k8s.io/", "KEDGE_ORACLE_136": "autoscaling/v1 flowcontrol.apiserver.k8s.io/ resource.k8s.io/v1beta1 resource.k8s.io/v1 admissionregistration.k8s.io/v1alpha1 storage.k8s.io/v1alpha1"} {
		binary := os.Getenv(env)
		if binary == "" {
			t.Logf("%s names no oracle; its pairs are not compared", env)
			continue
		}
		for _, file := range pairFiles(t) {
			_, sections := pairOf(t, file)
			in := parsedYAML(t, sections["in.yaml"])
			if sections["out.yaml"] == "" || !knows(known, in["apiVersion"].(string)) || !knows(known, versionOf(t, sections).String()) && !strings.HasSuffix(versionOf(t, sections).Version, "1") && versionOf(t, sections).Version != "v2" {
				continue
			}
			name := strings.TrimSuffix(filepath.Base(file), ".txtar")
			if why := otherwise[name]; why != "" {
				t.Logf("%s is not compared: %s", name, why)
				continue
			}
			t.Run(name, func(t *testing.T) { pairWithOracle(t, binary, in, sections, checked, name) })
		}
	}
	if os.Getenv("KEDGE_ORACLE_124") != "" && len(checked) < 40 {
		t.Errorf("only %d pairs were compared", len(checked))
	}
}

func knows(list, apiVersion string) bool {
	for prefix := range strings.FieldsSeq(list) {
		if strings.HasPrefix(apiVersion, prefix) {
			return true
		}
	}
	return false
}

func pairWithOracle(t *testing.T, binary string, in map[string]any, sections map[string]string, checked map[string]bool, name string) {
	t.Helper()
	knownDifferences(in)
	to := versionOf(t, sections).String()
	rawIn, _ := utiljson.Marshal(in)
	rawOut, _ := utiljson.Marshal(parsedYAML(t, sections["out.yaml"]))
	answers := runOracle(t, binary, []oraclePair{{In: rawIn, To: to}, {In: rawOut, To: to}}, "-mode", "convert")
	if answers[0].Err != "" && strings.Contains(answers[0].Err, "no kind") {
		t.Skip("the oracle does not know the version")
	}
	for _, a := range answers {
		if a.Err != "" {
			t.Fatal(a.Err)
		}
	}
	answers[0].In = answers[0].Want
	answers[0] = runOracle(t, binary, answers[:1], "-mode", "convert")[0]
	want, got := parsed(t, answers[0].Want).(map[string]any), parsed(t, answers[1].Want).(map[string]any)
	knownDifferences(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-Kubernetes +Kedge)\n%s", diff)
	}
	checked[name] = true
}
