package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
	"kedge.dev/kedge/test/testbed"
)

func read(t *testing.T, store plugins.ObjectStore, key string) string {
	t.Helper()
	r, err := store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func list(t *testing.T, store plugins.ObjectStore) (found []string) {
	t.Helper()
	err := store.List(t.Context(), "", func(info plugins.ObjectInfo) error {
		found = append(found, fmt.Sprintf("%s=%d", info.Key, info.Size))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestOldestVersion has somebody else, with the bucket's own means, put versions and delete markers on objects.
func TestOldestVersion(t *testing.T) {
	b := testbed.NewBucket(t, testbed.Versioned())
	loc := location(t, b)
	loc.Prefix = "p"
	store := open(t, loc, s3.Options{})
	intruder := b.Client()
	for _, key := range []string{"covered", "hidden", "hidden-and-covered", "hiddes"} {
		if _, err := store.Put(t.Context(), key, strings.NewReader("original"), plugins.PutOptions{IfNoneMatch: true}); err != nil {
			t.Fatal(err)
		}
	}
	cover := func(key string) {
		t.Helper()
		_, err := intruder.PutObject(t.Context(), &awss3.PutObjectInput{Bucket: &b.Name, Key: aws.String("p/" + key), Body: strings.NewReader("forged bytes")})
		if err != nil {
			t.Fatal(err)
		}
	}
	hide := func(key string) {
		t.Helper()
		if _, err := intruder.DeleteObject(t.Context(), &awss3.DeleteObjectInput{Bucket: &b.Name, Key: aws.String("p/" + key)}); err != nil {
			t.Fatal(err)
		}
	}
	cover("covered")
	cover("covered")
	hide("hidden")
	hide("hidden-and-covered")
	cover("hidden-and-covered")
	for _, store := range []*s3.Store{store, open(t, loc, s3.Options{})} { // with a warm memory and with a cold one
		for _, key := range []string{"covered", "hidden", "hidden-and-covered", "hiddes"} {
			if got := read(t, store, key); got != "original" {
				t.Errorf("%s reads %q", key, got)
			}
			if info, err := store.Stat(t.Context(), key); err != nil || info.Size != 8 {
				t.Errorf("Stat of %s gives %+v, %v", key, info, err)
			}
			_, err := store.Put(t.Context(), key, strings.NewReader("another"), plugins.PutOptions{IfNoneMatch: true})
			if !errors.Is(err, plugins.ErrExists) {
				t.Errorf("a conditional Put of %s gives %v", key, err)
			}
			if got := read(t, store, key); got != "original" {
				t.Errorf("after that, %s reads %q", key, got)
			}
		}
		if got, want := fmt.Sprint(list(t, store)), "[covered=8 hidden=8 hidden-and-covered=8 hiddes=8]"; got != want {
			t.Errorf("List shows %s, want %s", got, want)
		}
	}

	if _, err := store.Put(t.Context(), "covered", strings.NewReader("replaced"), plugins.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, store, "covered"); got != "replaced" {
		t.Errorf("after a replacement it reads %q", got)
	}
	for _, key := range []string{"covered", "hidden", "hidden-and-covered", "hiddes"} {
		if err := store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	out, err := intruder.ListObjectVersions(t.Context(), &awss3.ListObjectVersionsInput{Bucket: &b.Name})
	if err != nil || len(out.Versions)+len(out.DeleteMarkers) != 0 {
		t.Errorf("after Delete there are %d versions and %d markers, %v", len(out.Versions), len(out.DeleteMarkers), err)
	}
	if got := list(t, store); len(got) != 0 {
		t.Errorf("List shows %q", got)
	}
}

// TestMarkersAlone are a key that never had an object.
func TestMarkersAlone(t *testing.T) {
	b := testbed.NewBucket(t, testbed.Versioned())
	store := open(t, location(t, b), s3.Options{})
	if _, err := store.Put(t.Context(), "a", strings.NewReader("x"), plugins.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	client := b.Client()
	out, err := client.ListObjectVersions(t.Context(), &awss3.ListObjectVersionsInput{Bucket: &b.Name})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteObject(t.Context(), &awss3.DeleteObjectInput{Bucket: &b.Name, Key: aws.String("a")}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteObject(t.Context(), &awss3.DeleteObjectInput{Bucket: &b.Name, Key: aws.String("a"), VersionId: out.Versions[0].VersionId}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(t.Context(), "a", 0, -1); !errors.Is(err, plugins.ErrNotFound) {
		t.Errorf("Get gives %v", err)
	}
	if got := list(t, store); len(got) != 0 {
		t.Errorf("List shows %q", got)
	}
	if _, err := store.Put(t.Context(), "a", strings.NewReader("y"), plugins.PutOptions{}); err != nil {
		t.Error(err)
	}
	if got := read(t, store, "a"); got != "y" {
		t.Errorf("it reads %q", got)
	}
}

// TestManyVersions spreads the versions of a few keys over several pages, each page ending in the middle of a key.
func TestManyVersions(t *testing.T) {
	d := startDouble(t)
	const perKey, pageSize = 7, 3
	type entry struct {
		key string
		n   int // newest first: 6 … 0; every third is a delete marker, so 6, 3 and 0 are
	}
	var all []entry
	for _, key := range []string{"p/a b", "p/b", "p/b2"} {
		for n := perKey - 1; n >= 0; n-- {
			all = append(all, entry{key, n})
		}
	}
	d.on("GetBucketVersioning", func(_ int, w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>`)
	})
	d.on("ListObjectVersions", func(_ int, w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		var page []entry
		after := q.Get("key-marker") == ""
		truncated := false
		for _, e := range all {
			switch {
			case !strings.HasPrefix(e.key, q.Get("prefix")):
			case !after:
				after = e.key == q.Get("key-marker") && fmt.Sprint(e.n) == q.Get("version-id-marker")
			case len(page) == pageSize:
				truncated = true
			default:
				page = append(page, e)
			}
		}
		var xml bytes.Buffer
		escape := func(key string) string { return strings.ReplaceAll(strings.ReplaceAll(key, " ", "+"), "/", "%2F") }
		for _, e := range page {
			element := "Version"
			if e.n%3 == 0 {
				element = "DeleteMarker"
			}
			fmt.Fprintf(&xml, "<%s><Key>%s</Key><VersionId>%d</VersionId><Size>%d</Size></%s>", element, escape(e.key), e.n, e.n, element)
		}
		next := ""
		if truncated {
			last := page[len(page)-1]
			next = fmt.Sprintf("<NextKeyMarker>%s</NextKeyMarker><NextVersionIdMarker>%d</NextVersionIdMarker>", escape(last.key), last.n)
		}
		fmt.Fprintf(w, "<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>%t</IsTruncated>%s%s</ListVersionsResult>", truncated, next, xml.String())
	})
	store := d.open(t, s3.Options{})
	if got, want := fmt.Sprint(list(t, store)), "[a b=1 b=1 b2=1]"; got != want {
		t.Errorf("List shows %s, want %s", got, want)
	}
	if info, err := store.Stat(t.Context(), "b"); err != nil || info.Size != 1 {
		t.Errorf("Stat gives %+v, %v", info, err)
	}
	if err := store.Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	var deleted []string
	for _, r := range d.sent("DeleteObject") {
		if r.Path != "/bucket/p/b" {
			t.Errorf("deleted %s", r.Path)
		}
		query, err := url.ParseQuery(r.Query)
		if err != nil {
			t.Error(err)
		}
		deleted = append(deleted, query.Get("versionId"))
	}
	if len(deleted) != perKey || deleted[perKey-1] != "1" || !slices.Contains(deleted, "6") {
		t.Errorf("deleted the versions %q, want all seven, the oldest object last", deleted)
	}
}

// TestVersioningUnknown opens buckets that may not be asked whether they have versions.
func TestVersioningUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		versioning, versions string // error codes; "" succeeds
		want                 string // the operation that a List makes
	}{
		"may list versions":   {"AccessDenied", "", "ListObjectVersions"},
		"may not either":      {"AccessDenied", "AccessDenied", "ListObjectsV2"},
		"knows no versions":   {"NotImplemented", "NotImplemented", "ListObjectsV2"},
		"knows listing alone": {"NotImplemented", "", "ListObjectVersions"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t)
			d.on("GetBucketVersioning", func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 403, c.versioning, "no") })
			d.on("ListObjectVersions", func(_ int, w http.ResponseWriter, _ *http.Request) {
				if c.versions != "" {
					refuse(w, 403, c.versions, "no")
					return
				}
				fmt.Fprint(w, "<ListVersionsResult/>")
			})
			d.on("ListObjectsV2", func(_ int, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<ListBucketResult/>") })
			store := d.open(t, s3.Options{})
			before := len(d.sent(c.want))
			if got := list(t, store); len(got) != 0 {
				t.Errorf("List shows %q", got)
			}
			if len(d.sent(c.want)) != before+1 {
				t.Errorf("List did not use %s", c.want)
			}
		})
	}
}

// TestRetained tells retention from missing rights by looking.
func TestRetained(t *testing.T) {
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for name, c := range map[string]struct {
		header map[string]string
		want   error
		says   string
	}{
		"retention":     {map[string]string{"X-Amz-Object-Lock-Mode": "COMPLIANCE", "X-Amz-Object-Lock-Retain-Until-Date": until.Format(time.RFC3339)}, plugins.ErrRetained, "until " + until.Format(time.RFC3339)},
		"legal hold":    {map[string]string{"X-Amz-Object-Lock-Legal-Hold": "ON"}, plugins.ErrRetained, "legal hold"},
		"over":          {map[string]string{"X-Amz-Object-Lock-Retain-Until-Date": "2020-01-01T00:00:00Z"}, plugins.ErrAccess, "s3:DeleteObject"},
		"nothing known": {nil, plugins.ErrAccess, "s3:DeleteObject"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t)
			store := d.open(t, s3.Options{})
			d.on("DeleteObject", func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "AccessDenied", "Access Denied") })
			d.on("HeadObject", func(_ int, w http.ResponseWriter, _ *http.Request) {
				for name, value := range c.header {
					w.Header().Set(name, value)
				}
			})
			checkError(t, store.Delete(t.Context(), "k"), c.want, []string{"delete s3://bucket/p/k", c.says})
		})
	}
}

// TestTLS reaches a server whose authority only the location names.
func TestTLS(t *testing.T) {
	b := testbed.NewTLSBucket(t)
	loc := location(t, b)
	store := open(t, loc, s3.Options{PartSize: 5 << 20, WholeSize: -1})
	data := bytes.Repeat([]byte("tls"), 3<<20)
	for _, size := range []int{10, len(data)} {
		if _, err := store.Put(t.Context(), "k", bytes.NewReader(data[:size]), plugins.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := read(t, store, "k"); got != string(data[:size]) {
			t.Errorf("%d bytes come back as %d", size, len(got))
		}
	}
	loc.CABundle = ""
	_, err := s3.New(t.Context(), loc, s3.Options{})
	checkError(t, err, plugins.ErrConfig, []string{"give the authority's certificate as caBundle"})
}

// TestCredentials finds them where the chain has them: in the environment, and not there where a file is named.
func TestCredentials(t *testing.T) {
	b := testbed.NewBucket(t)
	loc := location(t, b)
	file := loc.CredentialsFile
	loc.CredentialsFile = ""
	t.Setenv("AWS_ACCESS_KEY_ID", b.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", b.SecretKey)
	open(t, loc, s3.Options{})
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	_, err := s3.New(t.Context(), loc, s3.Options{})
	checkError(t, err, plugins.ErrAccess, []string{"SignatureDoesNotMatch", "check the secret access key"})
	t.Setenv("AWS_ACCESS_KEY_ID", "AKUNKNOWN")
	_, err = s3.New(t.Context(), loc, s3.Options{})
	checkError(t, err, plugins.ErrAccess, []string{"check which access key is used"})
	loc.CredentialsFile = file
	open(t, loc, s3.Options{})
	loc.Bucket += "-not"
	_, err = s3.New(t.Context(), loc, s3.Options{})
	checkError(t, err, plugins.ErrConfig, []string{"NoSuchBucket", "create the bucket"})
	loc.Bucket, loc.Region = b.Name, "eu-central-1"
	_, err = s3.New(t.Context(), loc, s3.Options{})
	checkError(t, err, plugins.ErrConfig, []string{"region", b.Region})
}

// TestCheckFindings examines buckets with something to say about.
func TestCheckFindings(t *testing.T) {
	level := func(findings []plugins.Finding, name string) plugins.Finding {
		t.Helper()
		i := slices.IndexFunc(findings, func(f plugins.Finding) bool { return f.Name == name })
		if i < 0 {
			t.Fatalf("there is no finding %q in %+v", name, findings)
		}
		return findings[i]
	}
	t.Run("locked", func(t *testing.T) {
		store := open(t, location(t, testbed.NewBucket(t, testbed.Locked())), s3.Options{})
		for _, f := range store.Check(t.Context(), plugins.CheckOptions{ObjectLock: true}) {
			if f.Level != plugins.LevelOK {
				t.Errorf("%+v", f)
			}
		}
	})
	t.Run("not locked", func(t *testing.T) {
		store := open(t, location(t, testbed.NewBucket(t)), s3.Options{})
		f := level(store.Check(t.Context(), plugins.CheckOptions{ObjectLock: true}), "object-lock")
		if f.Level != plugins.LevelFailed || f.Remedy == "" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("default retention", func(t *testing.T) {
		b := testbed.NewBucket(t, testbed.Locked())
		_, err := b.Client().PutObjectLockConfiguration(t.Context(), &awss3.PutObjectLockConfigurationInput{
			Bucket: &b.Name, ObjectLockConfiguration: &types.ObjectLockConfiguration{
				ObjectLockEnabled: types.ObjectLockEnabledEnabled,
				Rule:              &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionModeCompliance, Days: aws.Int32(3)}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		store := open(t, location(t, b), s3.Options{})
		if f := level(store.Check(t.Context(), plugins.CheckOptions{}), "write"); f.Level != plugins.LevelWarning {
			t.Errorf("%+v", f)
		}
		if got := list(t, store); len(got) != 0 {
			t.Errorf("Check left %q for three days", got)
		}
	})
	t.Run("clock", func(t *testing.T) {
		for off, want := range map[time.Duration]plugins.Level{0: plugins.LevelOK, 2 * time.Minute: plugins.LevelWarning, -time.Hour: plugins.LevelFailed} {
			now := func() time.Time { return time.Now().Add(off) }
			store := open(t, location(t, testbed.NewBucket(t)), s3.Options{Now: now})
			if f := level(store.Check(t.Context(), plugins.CheckOptions{ReadOnly: true}), "clock"); f.Level != want {
				t.Errorf("off by %v: %+v", off, f)
			}
		}
	})
	t.Run("overwrites", func(t *testing.T) {
		d := startDouble(t)
		d.on("ListObjectsV2", func(_ int, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<ListBucketResult/>") })
		f := level(d.open(t, s3.Options{}).Check(t.Context(), plugins.CheckOptions{}), "conditional-write")
		if f.Level != plugins.LevelFailed || !strings.Contains(f.Detail, "If-None-Match") {
			t.Errorf("%+v", f)
		}
	})
}
