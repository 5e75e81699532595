package notify

import (
	"strings"
	"testing"
	"time"
)

const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

func TestParse(t *testing.T) {
	c, err := Parse([]byte(`
webhooks:
- name: ops
  url: https://hooks.example.com/T000/secretpart
  headers: {Authorization: Bearer abc}
  signingSecret: ` + secret + `
  events: [Failure, PartialFailure, Silence]
  schedules: ["prod-*"]
  timeout: 20s
- name: chat
  url: http://127.0.0.1:8080/x
  template: '{"text": {{json (printf "%s %s: %s" .Kind .Name .Event)}}}'
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.MaxAge.Duration; got != 6*time.Hour {
		t.Errorf("maxAge is %s", got)
	}
	if got := c.Webhooks[0].Timeout.Duration; got != 20*time.Second {
		t.Errorf("timeout is %s", got)
	}
	if got := c.Webhooks[1].Timeout.Duration; got != 10*time.Second {
		t.Errorf("the default timeout is %s", got)
	}
	if got := string(c.Webhooks[0].secret); got != "01234567890123456789012345678901" {
		t.Errorf("the secret is %q", got)
	}
}

// TestParseRefuses: what cannot be meant is refused with the field, and nothing that may be secret is repeated.
func TestParseRefuses(t *testing.T) {
	hook := func(fields string) string {
		return "webhooks:\n- name: ops\n  url: https://h.example/sesame\n  " + fields + "\n"
	}
	for name, c := range map[string]struct{ config, want string }{
		"not YAML":                    {"webhooks: [sesame", "it is not YAML of the form"},
		"a wrong type":                {"webhooks: sesame", "it is not YAML of the form"},
		"an unknown field":            {hook("signingSecrets: sesame"), `unknown field "signingSecrets"`},
		"negative age":                {"maxAge: -1s", "maxAge: it is negative"},
		"no name":                     {"webhooks: [{url: 'https://h.example/sesame'}]", "webhooks[0].name:"},
		"a name twice":                {hook("") + "- name: ops\n  url: https://h.example/\n", `webhooks[1].name: "ops" is another's already`},
		"no URL":                      {"webhooks: [{name: ops}]", "webhooks[0].url: it is not an absolute URL"},
		"a broken URL":                {"webhooks: [{name: ops, url: 'https://h.example/%zzsesame'}]", "webhooks[0].url: it is not an absolute URL"},
		"http":                        {"webhooks: [{name: ops, url: 'http://h.example/sesame'}]", "allowHTTP"},
		"another scheme":              {"webhooks: [{name: ops, url: 'ftp://h.example/sesame'}]", "it is to begin with https://"},
		"credentials in the URL":      {"webhooks: [{name: ops, url: 'https://u:sesame@h.example/'}]", "put credentials into headers"},
		"an unknown event":            {hook("events: [sesame]"), "webhooks[0].events[0]: it is not one of [Success PartialFailure Failure Silence]"},
		"a broken glob":               {hook("schedules: ['[a']"), "webhooks[0].schedules[0]: it is not a glob"},
		"too long":                    {hook("timeout: 2m"), "webhooks[0].timeout: it is to be at most 1m0s"},
		"no secret":                   {hook("signingSecret: sesame"), "webhooks[0].signingSecret: it is to be whsec_"},
		"a short secret":              {hook("signingSecret: whsec_c2VzYW1l"), "webhooks[0].signingSecret: it is to be whsec_"},
		"a header of ours":            {hook("headers: {webhook-id: sesame}"), "webhooks[0].headers: Webhook-Id is set by the server"},
		"a header with a break":       {hook(`headers: {Authorization: "sesame\n"}`), "webhooks[0].headers: the value of Authorization has a line break"},
		"a header's name":             {hook(`headers: {"a b": sesame}`), "webhooks[0].headers: a name is not that of an HTTP header"},
		"no certificate":              {hook("caBundle: sesame"), "webhooks[0].caBundle: it holds no PEM certificate"},
		"a broken template":           {hook(`template: '{{'`), "webhooks[0].template: it cannot be read"},
		"a template of text":          {hook(`template: 'hello {{.Name}}'`), "what it makes is not JSON"},
		"a template unquoted":         {hook(`template: '{"text": "{{.Message}}"}'`), "tried on an example of kind Backup: what it makes is not JSON"},
		"a template's field":          {hook(`template: '{"x": {{json .Nothing}}}'`), "tried on an example of kind Backup"},
		"a template for backups only": {hook(`template: '{"items": {{.BackupCounts.Items}}}'`), "tried on an example of kind Restore"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.config))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error repeats what may be secret: %v", err)
			}
		})
	}
	if _, err := Parse(make([]byte, maxConfig+1)); err == nil {
		t.Error("a file of more than a mebibyte is read")
	}
}
