package s3_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/plugins"
	"kedge.dev/kedge/plugins/s3"
)

// credentialsDouble plays the services that hand credentials out: STS, and the agent of EKS Pod Identity. The access key that it gives names the way.
type credentialsDouble struct {
	mu    sync.Mutex
	asked []string
}

func (c *credentialsDouble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	expires := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	if r.Method == http.MethodGet {
		c.asked = append(c.asked, "agent "+r.Header.Get("Authorization"))
		fmt.Fprintf(w, `{"AccessKeyId":"AGENT","SecretAccessKey":"s","Token":"t","Expiration":%q}`, expires)
		return
	}
	action := r.FormValue("Action")
	by := ""
	if _, after, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		by, _, _ = strings.Cut(after, "/")
	}
	c.asked = append(c.asked, fmt.Sprintf("%s %s by %q token %q external %q", action, r.FormValue("RoleArn"), by, r.FormValue("WebIdentityToken"), r.FormValue("ExternalId")))
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><Credentials><AccessKeyId>%[2]s</AccessKeyId>`+
		`<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%[3]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
		action, strings.ToUpper(action), expires)
}

// TestCredentialChain gets credentials in each way that a pod or a person has them, and looks by which key the bucket is asked.
func TestCredentialChain(t *testing.T) {
	const role = "arn:aws:iam::111122223333:role/"
	for name, c := range map[string]struct {
		env    map[string]string
		change func(*v1alpha1.S3Location)
		key    string   // the access key that signs
		asked  []string // what the services were asked
	}{
		"environment": {env: map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"}, key: "ENV"},
		"a file comes before the environment": {
			env:    map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"},
			change: func(l *v1alpha1.S3Location) { l.CredentialsFile = "FILE" }, key: "DEFAULT",
		},
		"a profile of the file":          {change: func(l *v1alpha1.S3Location) { l.CredentialsFile, l.Profile = "FILE", "other" }, key: "OTHER"},
		"the profile of the environment": {env: map[string]string{"AWS_PROFILE": "shared"}, key: "SHARED"},
		"IRSA": {
			env: map[string]string{"AWS_ROLE_ARN": role + "irsa", "AWS_WEB_IDENTITY_TOKEN_FILE": "TOKEN"},
			key: "ASSUMEROLEWITHWEBIDENTITY", asked: []string{`AssumeRoleWithWebIdentity ` + role + `irsa by "" token "jwt" external ""`},
		},
		"Pod Identity": {
			env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "AGENT", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "TOKEN"},
			key: "AGENT", asked: []string{"agent jwt"},
		},
		"a role": {
			env:    map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s"},
			change: func(l *v1alpha1.S3Location) { l.RoleARN, l.ExternalID = role+"backup", "42" },
			key:    "ASSUMEROLE", asked: []string{`AssumeRole ` + role + `backup by "ENV" token "" external "42"`},
		},
		"a role from IRSA": {
			env:    map[string]string{"AWS_ROLE_ARN": role + "irsa", "AWS_WEB_IDENTITY_TOKEN_FILE": "TOKEN"},
			change: func(l *v1alpha1.S3Location) { l.RoleARN = role + "backup" },
			key:    "ASSUMEROLE", asked: []string{
				`AssumeRoleWithWebIdentity ` + role + `irsa by "" token "jwt" external ""`,
				`AssumeRole ` + role + `backup by "ASSUMEROLEWITHWEBIDENTITY" token "" external ""`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			services := &credentialsDouble{}
			server := httptest.NewServer(services)
			t.Cleanup(server.Close)
			files := credentialFiles(t)
			files["AGENT"] = server.URL + "/v1/credentials"
			env := map[string]string{
				"AWS_ENDPOINT_URL_STS": server.URL, "AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": files["SHARED"], "AWS_CONFIG_FILE": "/no/such/file",
				"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_ROLE_ARN": "",
				"AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "",
			}
			for variable, value := range c.env {
				if path, ok := files[value]; ok {
					value = path
				}
				env[variable] = value
			}
			for variable, value := range env {
				t.Setenv(variable, value)
			}
			d := startDouble(t)
			loc := doubleLocation(t, d.URL)
			loc.CredentialsFile = ""
			if c.change != nil {
				c.change(&loc)
			}
			if loc.CredentialsFile != "" {
				loc.CredentialsFile = files[loc.CredentialsFile]
			}
			store := open(t, loc, s3.Options{})
			_, _ = store.Put(t.Context(), "k", strings.NewReader("x"), plugins.PutOptions{})
			for _, r := range d.requests {
				if !strings.Contains(r.Header.Get("Authorization"), "Credential="+c.key+"/") {
					t.Errorf("%s is signed as %s, want %s", r.Op, r.Header.Get("Authorization"), c.key)
				}
			}
			if len(d.requests) != 2 {
				t.Errorf("%d requests", len(d.requests))
			}
			if got, want := strings.Join(services.asked, "\n"), strings.Join(c.asked, "\n"); got != want {
				t.Errorf("the services were asked\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// credentialFiles writes the files that the chain may read, by the names that the table has for them.
func credentialFiles(t *testing.T) map[string]string {
	t.Helper()
	entry := "[%s]\naws_access_key_id = %s\naws_secret_access_key = s\n"
	files := map[string]string{}
	for name, text := range map[string]string{
		"FILE":   fmt.Sprintf(entry+entry, "default", "DEFAULT", "other", "OTHER"),
		"SHARED": fmt.Sprintf(entry, "shared", "SHARED"),
		"TOKEN":  "jwt",
	} {
		files[name] = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(files[name], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
