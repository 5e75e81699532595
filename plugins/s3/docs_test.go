package s3_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rights are the IAM actions of each call ("Actions, resources, and condition keys for Amazon S3" of the Service Authorization Reference).
var rights = map[string][]string{
	"GetBucketVersioning":        {"s3:GetBucketVersioning"},
	"ListObjectsV2":              {"s3:ListBucket"},
	"ListObjectVersions":         {"s3:ListBucketVersions"},
	"HeadObject":                 {"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention", "s3:GetObjectLegalHold"},
	"GetObject":                  {"s3:GetObject", "s3:GetObjectVersion"},
	"PutObject":                  {"s3:PutObject", "s3:PutObjectRetention"},
	"CreateMultipartUpload":      {"s3:PutObject", "s3:PutObjectRetention"},
	"UploadPart":                 {"s3:PutObject"},
	"CompleteMultipartUpload":    {"s3:PutObject"},
	"AbortMultipartUpload":       {"s3:AbortMultipartUpload"},
	"DeleteObject":               {"s3:DeleteObject", "s3:DeleteObjectVersion"},
	"GetObjectLockConfiguration": {"s3:GetBucketObjectLockConfiguration"},
}

// TestDocumentedRights holds docs/locations.md against the calls in the source: its policy allows all that they need, and nothing else.
func TestDocumentedRights(t *testing.T) {
	page, err := os.ReadFile("../../docs/locations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, policy, _ := strings.Cut(string(page), "```json")
	policy, table, _ := strings.Cut(policy, "```")
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	needed := map[string]bool{}
	calls := regexp.MustCompile(`client\.([A-Z]\w+)\(`)
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls.FindAllStringSubmatch(string(source), -1) {
			actions, known := rights[call[1]]
			if !known {
				t.Errorf("%s calls %s, whose rights are not known here", name, call[1])
			}
			if !strings.Contains(table, call[1]) {
				t.Errorf("the page does not name the call of %s", call[1])
			}
			for _, action := range actions {
				needed[action] = true
				if !strings.Contains(policy, `"`+action+`"`) || !strings.Contains(table, "`"+action+"`") {
					t.Errorf("the page does not allow %s, which %s needs", action, call[1])
				}
			}
		}
	}
	for _, allowed := range regexp.MustCompile(`"(s3:\w+)"`).FindAllStringSubmatch(policy, -1) {
		if !needed[allowed[1]] {
			t.Errorf("the page allows %s, which nothing needs", allowed[1])
		}
	}
	if len(needed) < 10 {
		t.Errorf("only %d rights are needed: the calls were not found", len(needed))
	}
}
