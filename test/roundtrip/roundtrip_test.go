//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// corpusEnv names the environment variable that says where the corpus of real manifests is: data beside the project, not part of it.
const corpusEnv = "KEDGE_CORPUS"

// sample are the corpus's folders that every test run takes; KEDGE_SOAK=1 takes all.
const sample = "cloudnative-pg,gatekeeper,aws-efs-classic-statefulset,velero-testdata-case-targets,old-k8s-1.24-psp"

func TestOwnApplicationsOnTheSameVersion(t *testing.T) {
	expectNothingSilent(t, options{corpus: filepath.Join("..", "apps"), folder: ".", from: "1.24.17", to: "1.24.17"})
}

func TestOwnApplicationsAcrossVersions(t *testing.T) {
	expectNothingSilent(t, options{corpus: filepath.Join("..", "apps"), folder: ".", from: "1.24.17", to: "1.36.3"})
}

func TestCorpusOnTheSameVersion(t *testing.T) {
	expectNothingSilent(t, options{corpus: corpus(t), folder: folders(), from: "1.36.3", to: "1.36.3"})
}

func TestCorpusAcrossVersions(t *testing.T) {
	expectNothingSilent(t, options{corpus: corpus(t), folder: folders(), from: "1.24.17", to: "1.36.3"})
}

// corpus is the folder of real manifests.
func corpus(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(corpusEnv)
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no corpus of real manifests (%v); %s names one", err, corpusEnv)
	}
	return dir
}

func folders() string {
	if os.Getenv("KEDGE_SOAK") != "" {
		return ""
	}
	return sample
}

func expectNothingSilent(t *testing.T, o options) {
	t.Helper()
	o.jobs, o.verbose = 1, testing.Verbose()
	var out bytes.Buffer
	ok, err := run(t.Context(), o, &out)
	t.Log("\n" + out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !ok || !strings.Contains(out.String(), "roundtrip ") {
		t.Error("objects were lost or changed without a word")
	}
}
