package main

import (
	"bytes"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"kedge.dev/kedge/api/v1alpha1"
)

// readObject reads the file of a flag, which holds one object of a kind, into dst. Unknown and double fields and further documents
// are refused.
func (a *app) readObject(file, kind string, dst any) error {
	data, err := a.readInput(file)
	if err != nil {
		return err
	}
	if err := oneDocument(file, data); err != nil {
		return err
	}
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(data, &meta); err != nil {
		return fmt.Errorf("%s: %w", file, yamlError(err))
	}
	if want := v1alpha1.GroupVersion.String(); meta.APIVersion != want || meta.Kind != kind {
		return fmt.Errorf("%s: it is %q of %q, not %q of %q", file, meta.Kind, meta.APIVersion, kind, want)
	}
	if err := yaml.UnmarshalStrict(data, dst); err != nil {
		return fmt.Errorf("%s: %w", file, yamlError(err))
	}
	return nil
}

// readInput reads a file that a flag names; "-" is stdin.
func (a *app) readInput(file string) ([]byte, error) {
	if file == "-" {
		return readSmall("stdin", a.env.Stdin)
	}
	return readSmallFile(file)
}

// oneDocument refuses files of none or several documents.
func oneDocument(name string, data []byte) error {
	docs := 0
	for doc := range bytes.SplitSeq(append([]byte("\n"), data...), []byte("\n---")) {
		if len(bytes.TrimSpace(stripComments(doc))) > 0 {
			docs++
		}
	}
	if docs != 1 {
		return fmt.Errorf("%s holds %d documents, not one", name, docs)
	}
	return nil
}

// stripComments drops lines that are comments only.
func stripComments(doc []byte) []byte {
	var out []byte
	for line := range bytes.Lines(doc) {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			out = append(out, line...)
		}
	}
	return out
}
