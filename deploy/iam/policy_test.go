package iam_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kedge.dev/kedge/deploy/iam"
)

const key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

func policy(t *testing.T, l iam.Location) (actions []string, resources []string) {
	t.Helper()
	p, err := iam.ForLocation(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Statement {
		actions = append(actions, s.Action...)
		resources = append(resources, s.Resource)
	}
	return actions, resources
}

func TestForLocation(t *testing.T) {
	full, resources := policy(t, iam.Location{Bucket: "acme", Prefix: "blue", ObjectLock: true, LocationKey: key, BucketKey: key})
	if want := []string{"arn:aws:s3:::acme", "arn:aws:s3:::acme/blue/*", key, key}; !slices.Equal(resources, want) {
		t.Errorf("the resources are %v, want %v", resources, want)
	}
	for _, call := range iam.Calls {
		for _, r := range call.Rights {
			if !slices.Contains(full, r.Action) {
				t.Errorf("the full policy lacks %s, which %s needs", r.Action, call.Name)
			}
		}
	}
	read, _ := policy(t, iam.Location{Bucket: "acme", ReadOnly: true, ObjectLock: true, LocationKey: key, BucketKey: key})
	for _, action := range read {
		if strings.Contains(action, "Put") || strings.Contains(action, "Delete") || strings.Contains(action, "Abort") || strings.Contains(action, "Encrypt") || strings.Contains(action, "Generate") {
			t.Errorf("a policy for reading allows %s", action)
		}
	}
	if plain, _ := policy(t, iam.Location{Bucket: "acme", Unversioned: true}); slices.ContainsFunc(plain, func(a string) bool {
		return strings.Contains(a, "Version") && a != "s3:GetBucketVersioning" || strings.HasPrefix(a, "kms:") || strings.Contains(a, "Retention")
	}) {
		t.Errorf("a policy for a plain bucket allows %v", plain)
	}
	if _, r := policy(t, iam.Location{Bucket: "acme", Partition: "aws-cn"}); !slices.Equal(r, []string{"arn:aws-cn:s3:::acme", "arn:aws-cn:s3:::acme/*"}) {
		t.Errorf("the resources are %v", r)
	}
}

func TestRefused(t *testing.T) {
	for field, l := range map[string]iam.Location{
		"bucket":                      {Bucket: "acme*"},
		"prefix":                      {Bucket: "acme", Prefix: "a*"},
		"prefix: \"/a\"":              {Bucket: "acme", Prefix: "/a"},
		"partition":                   {Bucket: "acme", Partition: "azure"},
		"kms-key":                     {Bucket: "acme", LocationKey: "alias/kedge"},
		"bucket-kms-key":              {Bucket: "acme", BucketKey: "1234"},
		"object-lock":                 {Bucket: "acme", ObjectLock: true, Unversioned: true},
		"volume-kms-key":              {Bucket: "acme", Volumes: iam.VolumeCopies, VolumeKey: "1234"},
		"volume-kms-key: it is given": {Bucket: "acme", VolumeKey: key},
		"snapshot-copies":             {Bucket: "acme", SnapshotCopies: true},
		"snapshot-copy-kms-key":       {Bucket: "acme", Volumes: iam.VolumeSnapshots, CopyKeys: []string{key}},
		"snapshot-copy-kms-key: \"a":  {Bucket: "acme", Volumes: iam.VolumeSnapshots, SnapshotCopies: true, CopyKeys: []string{"alias/a"}},
		"snapshot-copy-role":          {Bucket: "acme", Volumes: iam.VolumeSnapshots, CopyRoles: []string{"copies"}},
	} {
		if _, err := iam.ForLocation(l); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%+v: the error is %v, want one about %s", l, err, field)
		}
	}
}

// TestCallsAreThoseOfTheSource holds the table against what plugins/s3 and plugins/kms call.
func TestCallsAreThoseOfTheSource(t *testing.T) {
	called := map[string]bool{}
	for prefix, folder := range map[string]string{"": "../../plugins/s3", "kms ": "../../plugins/kms"} {
		sources, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range sources {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range regexp.MustCompile(`client\.([A-Z]\w+)\(`).FindAllStringSubmatch(string(source), -1) {
				called[prefix+call[1]] = true
			}
			// No call may go another way than through a field named client, where the line above would miss it.
			for _, input := range regexp.MustCompile(`aws(?:s3|kms)\.(\w+)Input\{`).FindAllStringSubmatch(string(source), -1) {
				if !called[prefix+input[1]] && !strings.Contains(string(source), "client."+input[1]+"(") && !calledAnywhere(sources, input[1]) {
					t.Errorf("%s makes an input of %s, and no call of it was found", name, input[1])
				}
			}
		}
	}
	if len(called) < 10 {
		t.Fatalf("only %d calls were found", len(called))
	}
	for _, call := range iam.Calls {
		if !called[call.Name] {
			t.Errorf("nothing calls %s", call.Name)
		}
		delete(called, call.Name)
	}
	for name := range called {
		t.Errorf("%s is called, and the table does not say what it takes", name)
	}
}

func calledAnywhere(sources []string, name string) bool {
	return slices.ContainsFunc(sources, func(file string) bool {
		data, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(data), "client."+name+"(")
	})
}

// TestDocumentedPolicy holds docs/locations.md against the table: its policy is what "kedge aws policy" prints, its list of calls the table.
func TestDocumentedPolicy(t *testing.T) {
	page, err := os.ReadFile("../../docs/locations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	shown, rest, _ := strings.Cut(rest, "```")
	p, err := iam.ForLocation(iam.Location{
		Bucket: "my-backups", Prefix: "clusters/blue", ObjectLock: true,
		BucketKey: "arn:aws:kms:eu-west-1:111122223333:key/BUCKET-KEY", LocationKey: "arn:aws:kms:eu-west-1:111122223333:key/LOCATION-KEY",
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if shown != string(want) {
		t.Errorf("the page's policy is not the one that is printed:\n%s", want)
	}
	if !json.Valid([]byte(shown)) {
		t.Error("the page's policy is no JSON")
	}
	for _, call := range iam.Calls {
		row := "| " + call.Name + " | " + call.For + " |"
		for n, r := range call.Rights {
			if n > 0 {
				row += ","
			}
			row += " `" + r.Action + "`"
		}
		if !strings.Contains(rest, row+" |\n") {
			t.Errorf("the page lacks the row\n%s |", row)
		}
	}
}
