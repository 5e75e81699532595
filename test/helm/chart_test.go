// Package helm_test renders Kedge's chart with Helm's own library, and compares it with what "kedge install" makes of it. It is a module of its
// own, so that Helm is no dependency of Kedge.
package helm_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

const chart = "../../deploy/chart/kedge"

var kedge string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the program whose rendering is compared.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kedge-helm-*")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	kedge = filepath.Join(dir, "kedge")
	build := exec.Command("go", "build", "-o", kedge, "./cmd/kedge")
	build.Dir, build.Stderr = "../..", os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	return m.Run()
}

// valueSets are values that turn everything on, off, and aside.
var valueSets = map[string]string{
	"least": `
image: {repository: registry.example/kedge}
`,
	"on": `
fullnameOverride: anchor
image: {registry: "registry.example:5000", repository: platform/kedge, tag: v1.2.3, pullPolicy: Always, pullSecrets: [a, b]}
replicas: 3
server: {clusterName: "blue: \"1\"", requireServiceAccount: true, maxBackups: 5, maxPerLocation: 3, maxRestores: 2, maxInterruptions: 9, extraArgs: ["--lease-duration=30s", "a b: #c"]}
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy:3128"}, {name: X, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
extraVolumes: [{name: ca, configMap: {name: ca}}]
extraVolumeMounts: [{name: ca, mountPath: /ca, readOnly: true}]
serviceAccount: {annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::111122223333:role/kedge"}}
rbac: {aggregate: true}
priorityClass: {value: 100000000}
podLabels: {team: platform}
podAnnotations: {note: "multi\nline", number: "1"}
deploymentAnnotations: {a: b}
nodeSelector: {kubernetes.io/arch: arm64}
tolerations: [{key: dedicated, operator: Exists, tolerationSeconds: 300}]
affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {a: b}}}]}}
podDisruptionBudget: {maxUnavailable: "50%"}
networkPolicy:
  egressPorts: [443, 9000]
  extraEgress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 9443}]}]
  extraIngress: [{ports: [{port: 9090}]}]
  metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
metrics: {service: {annotations: {a: b}}, serviceMonitor: {enabled: true, interval: 10s, labels: {release: prometheus}}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {enabled: true}
namespace: {annotations: {a: b}, labels: {team: platform}}
locations:
- {name: main, labels: {a: b}, annotations: {c: d}, spec: {default: true, s3: {bucket: acme, region: eu-west-1, caBundle: "-----BEGIN\nx\n-----END\n"}}}
- {name: second, spec: {file: {path: /backups}}}
schedules:
- {name: daily, spec: {schedule: "0 3 * * *", timeZone: Europe/Berlin, template: {spec: {ttl: 720h}}, retention: {keepDaily: 7}}}
`,
	"off": `
image: {repository: kedge, digest: "sha256:0123456789012345678901234567890123456789012345678901234567890123"}
replicas: 0
serviceAccount: {create: false, name: existing}
rbac: {read: false, restore: false, exec: false, impersonate: false, userRoles: false}
priorityClass: {create: false}
spread: false
affinity: null
resources: {limits: null}
podDisruptionBudget: {enabled: false}
networkPolicy: {enabled: false}
flowControl: {enabled: false}
metrics: {scrapeAnnotations: false}
namespace: {create: false}
`,
	"policy": `
image: {repository: kedge}
serviceAccount: {name: other}
admissionPolicy: {enabled: true}
`,
	"no rights": `
image: {repository: kedge}
rbac: {create: false}
priorityClass: {create: false, name: system-cluster-critical}
`,
}

// clusters are versions of Kubernetes with the versions of APIs that the chart asks for.
var clusters = map[string][]string{
	"1.24": {"kedge.dev/v1alpha1", "flowcontrol.apiserver.k8s.io/v1beta2"},
	"1.27": {"kedge.dev/v1alpha1", "flowcontrol.apiserver.k8s.io/v1beta2", "flowcontrol.apiserver.k8s.io/v1beta3"},
	"1.36": {"kedge.dev/v1alpha1", "flowcontrol.apiserver.k8s.io/v1", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"},
}

// helm renders the chart as "helm install" does.
func helm(t *testing.T, version string, apis []string, values map[string]any) (map[string]string, error) {
	t.Helper()
	c, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	kube, err := common.ParseKubeVersion(version + ".0")
	if err != nil {
		t.Fatal(err)
	}
	caps := common.DefaultCapabilities.Copy()
	caps.KubeVersion, caps.APIVersions = *kube, apis
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: "kedge", Namespace: "kedge", Revision: 1, IsInstall: true}, caps)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var values map[string]any
	if err := sigsyaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// collect reads documents into objects by kind and name.
func collect(t *testing.T, text string, into map[string]any) {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var o map[string]any
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if len(o) == 0 {
			continue
		}
		meta, _ := o["metadata"].(map[string]any)
		key := o["kind"].(string) + "/" + meta["name"].(string)
		if _, twice := into[key]; twice {
			t.Errorf("%s is rendered twice", key)
		}
		into[key] = o
	}
}

// TestSameObjects compares every object of "kedge install --export" with Helm's.
func TestSameObjects(t *testing.T) {
	for set, text := range valueSets {
		for version, apis := range clusters {
			if set == "policy" && version != "1.36" {
				continue // it is refused there, which is tested where it is rendered
			}
			t.Run(set+" "+version, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "values.yaml")
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				export := exec.Command(kedge, "install", "--export", "--kube-version", version, "--values", file)
				var complaint strings.Builder
				export.Stderr = &complaint
				ours, err := export.Output()
				if err != nil {
					t.Fatalf("%v: %s", err, complaint.String())
				}
				values := parse(t, text)
				namespace, _ := values["namespace"].(map[string]any)
				if namespace == nil {
					namespace = map[string]any{}
					values["namespace"] = namespace
				}
				if _, given := namespace["create"]; !given { // kedge install makes the namespace
					namespace["create"] = true
				}
				rendered, err := helm(t, version, apis, values)
				if err != nil {
					t.Fatal(err)
				}
				got, want := map[string]any{}, map[string]any{}
				collect(t, string(ours), got)
				for name, document := range rendered {
					if path.Ext(name) == ".yaml" {
						collect(t, strings.ReplaceAll(document, "app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kedge"), want)
					}
				}
				if len(want) < 10 {
					t.Errorf("Helm renders only %d objects", len(want))
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("not what Helm makes (-Helm +kedge):\n%s", diff)
				}
			})
		}
	}
}

func TestLint(t *testing.T) {
	for set, text := range valueSets {
		kube, err := common.ParseKubeVersion("1.36.0")
		if err != nil {
			t.Fatal(err)
		}
		result := lint.RunAll(chart, parse(t, text), "kedge", lint.WithKubeVersion(kube))
		for _, m := range result.Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %s", set, m)
			}
		}
	}
}

// TestSchema shows that Helm refuses what "kedge install" refuses.
func TestSchema(t *testing.T) {
	for name, text := range map[string]string{
		"replicas":      "replicas: two",
		"unknown":       "replica: 1",
		"deep":          "image: {repo: x}",
		"digest":        "image: {digest: 'sha256:1'}",
		"annotation":    "podAnnotations: {a: true}",
		"location":      "locations: [{spec: {}}]",
		"port":          "networkPolicy: {egressPorts: [0]}",
		"pull policy":   "image: {pullPolicy: Sometimes}",
		"priority":      "priorityClass: {value: 2000000000}",
		"disruption":    "podDisruptionBudget: {maxUnavailable: half}",
		"spool":         "spool: {sizeLimit: large}",
		"env":           "extraEnv: [{value: x}]",
		"no repository": "image: {tag: x}",
	} {
		t.Run(name, func(t *testing.T) {
			values := parse(t, text)
			if name != "no repository" {
				values = loader.MergeMaps(map[string]any{"image": map[string]any{"repository": "kedge"}}, values)
			}
			if _, err := helm(t, "1.36", clusters["1.36"], values); err == nil {
				t.Error("Helm accepts it")
			}
			data, err := sigsyaml.Marshal(values)
			if err != nil {
				t.Fatal(err)
			}
			export := exec.Command(kedge, "install", "--export", "--kube-version", "1.36", "--values", "-")
			export.Stdin = strings.NewReader(string(data))
			if err := export.Run(); err == nil || export.ProcessState.ExitCode() != 2 {
				t.Errorf("kedge install ends with %v", err)
			}
		})
	}
}

// TestFirstInstall: objects of kinds that are not there yet would make "helm install" fail as a whole.
func TestFirstInstall(t *testing.T) {
	rendered, err := helm(t, "1.36", []string{"flowcontrol.apiserver.k8s.io/v1"}, parse(t, valueSets["on"]))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range rendered {
		if strings.Contains(text, "\nkind: BackupStorageLocation\n") || strings.Contains(text, "\nkind: Schedule\n") {
			t.Errorf("%s has objects of kinds that come with it", name)
		}
		if path.Base(name) == "NOTES.txt" && !strings.Contains(text, "not made yet") {
			t.Errorf("the notes do not say that they come later:\n%s", text)
		}
	}
}
