package iam_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kedge.dev/kedge/deploy/iam"
)

const (
	farKey = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	role   = "arn:aws:iam::444455556666:role/kedge-copies"
)

// TestForCopies looks at what a role may in the account that copies go to: nothing but make, see and delete what is Kedge's.
func TestForCopies(t *testing.T) {
	p, err := iam.ForCopies("", []string{key, farKey})
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, s := range p.Statement {
		for _, action := range s.Action {
			if !strings.HasPrefix(action, "kms:") {
				actions = append(actions, action)
			} else if s.Resource != key && s.Resource != farKey {
				t.Errorf("%s is allowed on %s", action, s.Resource)
			}
			if action != "ec2:DescribeSnapshots" && action != "ec2:CopySnapshot" && !strings.HasPrefix(action, "kms:") && len(s.Condition) == 0 {
				t.Errorf("%s is allowed without a condition", action)
			}
		}
	}
	slices.Sort(actions)
	actions = slices.Compact(actions)
	if want := []string{"ec2:CopySnapshot", "ec2:CreateTags", "ec2:DeleteSnapshot", "ec2:DescribeSnapshots"}; !slices.Equal(actions, want) {
		t.Errorf("the role may %v, want %v", actions, want)
	}
	if _, err := iam.ForCopies("", []string{"alias/copies"}); err == nil {
		t.Error("an alias is taken for a key")
	}
}

// TestVolumes looks at what is allowed for volumes: nothing unless it is asked for, and changes only where a condition holds.
func TestVolumes(t *testing.T) {
	none, _ := policy(t, iam.Location{Bucket: "acme"})
	for _, action := range none {
		if !strings.HasPrefix(action, "s3:") {
			t.Errorf("a policy without volumes allows %s", action)
		}
	}
	snapshots, _ := policy(t, iam.Location{Bucket: "acme", Volumes: iam.VolumeSnapshots})
	for _, action := range snapshots {
		if strings.HasPrefix(action, "ebs:") || strings.HasPrefix(action, "kms:") {
			t.Errorf("a policy for snapshots allows %s", action)
		}
	}
	for _, action := range snapshots {
		if action == "ec2:CopySnapshot" || action == "ec2:ModifySnapshotAttribute" || strings.HasPrefix(action, "sts:") {
			t.Errorf("a policy for snapshots that stay where they are allows %s", action)
		}
	}
	full, _ := policy(t, iam.Location{Bucket: "acme", Volumes: iam.VolumeCopies, VolumeKey: key, SnapshotCopies: true, CopyKeys: []string{farKey}, CopyRoles: []string{role}})
	for _, call := range iam.VolumeCalls {
		for _, r := range call.Rights {
			if !slices.Contains(full, r.Action) {
				t.Errorf("the full policy lacks %s, which %s needs", r.Action, call.Name)
			}
		}
	}
	read, _ := policy(t, iam.Location{Bucket: "acme", ReadOnly: true, Volumes: iam.VolumeCopies})
	for _, action := range []string{"ec2:CreateSnapshot", "ec2:CreateSnapshots", "ebs:GetSnapshotBlock", "ec2:DescribeInstances"} {
		if slices.Contains(read, action) {
			t.Errorf("a policy for restoring allows %s", action)
		}
	}
	for _, action := range []string{"ec2:CreateVolume", "ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot", "ec2:DeleteSnapshot", "ec2:CreateTags"} {
		if !slices.Contains(read, action) {
			t.Errorf("a policy for restoring lacks %s", action)
		}
	}
}

// TestVolumesAreGuarded: what changes or deletes snapshots and volumes is allowed on those with our tag only, tags only on what is ours or being made.
func TestVolumesAreGuarded(t *testing.T) {
	p, err := iam.ForLocation(iam.Location{
		Bucket: "acme", Volumes: iam.VolumeCopies, VolumeKey: key, SnapshotCopies: true, CopyKeys: []string{farKey, key}, CopyRoles: []string{role},
	})
	if err != nil {
		t.Fatal(err)
	}
	sids := map[string]bool{}
	for _, s := range p.Statement {
		if sids[s.Sid] || !regexp.MustCompile(`^[A-Za-z0-9]+$`).MatchString(s.Sid) {
			t.Errorf("statement %q is there twice, or cannot be called so", s.Sid)
		}
		sids[s.Sid] = true
		_, own := s.Condition["Null"]["aws:ResourceTag/kedge.dev/token"]
		_, made := s.Condition["Null"]["aws:RequestTag/kedge.dev/token"]
		for _, action := range s.Action {
			guarded := true
			switch name := action[strings.Index(action, ":")+1:]; {
			case strings.HasPrefix(action, "s3:"):
			case name == "CreateTags":
				guarded = own || len(s.Condition["StringEquals"]["ec2:CreateAction"]) > 0
			case name == "CopySnapshot":
				guarded = made || own
			case name == "AssumeRole":
				guarded = s.Resource == role
			case name == "CreateSnapshot" || name == "CreateSnapshots" || name == "StartSnapshot":
				guarded = made || !strings.HasSuffix(s.Resource, "snapshot/*")
			case name == "CreateAccessPoint":
				guarded = made
			case name == "TagResource":
				guarded = len(s.Condition["StringEquals"]["elasticfilesystem:CreateAction"]) > 0
			case name == "CreateVolume":
				guarded = made || strings.HasSuffix(s.Resource, "snapshot/*")
			case name == "CreateGrant":
				guarded = len(s.Condition["Bool"]["kms:GrantIsForAWSResource"]) > 0
			case strings.HasPrefix(action, "kms:"):
				guarded = s.Resource == key || s.Resource == farKey
			case strings.HasPrefix(name, "Describe"):
			default:
				guarded = own
			}
			if !guarded {
				t.Errorf("%s allows %s on %s with the condition %v", s.Sid, action, s.Resource, s.Condition)
			}
		}
	}
	data, err := p.JSON()
	if err != nil || len(data) > 10240 {
		t.Errorf("the policy has %d bytes, %v", len(data), err)
	}
}

// TestVolumeCallsAreThoseOfTheSource holds the table against what plugins/ebs and plugins/efs call.
func TestVolumeCallsAreThoseOfTheSource(t *testing.T) {
	sources, err := filepath.Glob("../../plugins/e[bf]s/*.go")
	if err != nil {
		t.Fatal(err)
	}
	called, made := map[string]bool{}, map[string]string{}
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`p\.(ec2|direct|client)\.([A-Z]\w+)\(`).FindAllStringSubmatch(string(source), -1) {
			called[map[string]string{"ec2": "ec2 ", "direct": "ebs ", "client": "efs "}[call[1]]+call[2]] = true
		}
		for _, call := range regexp.MustCompile(`aws(ec2|ebs|efs)\.New(\w+)Paginator\(`).FindAllStringSubmatch(string(source), -1) {
			called[call[1]+" "+call[2]] = true
		}
		// Every call has an input; one that goes another way than the lines above see is found by it.
		for _, input := range regexp.MustCompile(`aws(ec2|ebs|efs)\.(\w+)Input\{`).FindAllStringSubmatch(string(source), -1) {
			made[input[1]+" "+input[2]] = name
		}
	}
	for call, name := range made {
		if !called[call] {
			t.Errorf("%s makes an input of %s, and no call of it was found", name, call)
		}
	}
	for _, call := range iam.VolumeCalls {
		if !called[call.Name] {
			t.Errorf("nothing calls %s", call.Name)
		}
		delete(called, call.Name)
	}
	for name := range called {
		t.Errorf("%s is called, and the table does not say what it takes", name)
	}
}

// TestDocumentedVolumeCalls holds the list of docs/volumes.md against the table.
func TestDocumentedVolumeCalls(t *testing.T) {
	page, err := os.ReadFile("../../docs/volumes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range iam.VolumeCalls {
		var actions []string
		for _, r := range call.Rights {
			if action := "`" + r.Action + "`"; !slices.Contains(actions, action) {
				actions = append(actions, action)
			}
		}
		if row := "| " + call.Name + " | " + call.For + " | " + strings.Join(actions, ", ") + " |\n"; !strings.Contains(string(page), row) {
			t.Errorf("the page lacks the row\n%s", row)
		}
	}
}
