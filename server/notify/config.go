// Package notify tells webhooks how backups and restores ended, and that a schedule has fallen silent.
package notify

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// EventType is what is told.
type EventType string

// The event types. What a person cancelled is not told.
const (
	// Success: a backup or restore is Completed.
	Success EventType = "Success"
	// PartialFailure: it is PartiallyFailed.
	PartialFailure EventType = "PartialFailure"
	// Failure: it is Failed.
	Failure EventType = "Failure"
	// Silence: a run of a schedule is overdue.
	Silence EventType = "Silence"
)

var allEvents = []EventType{Success, PartialFailure, Failure, Silence}

// The bounds of a configuration.
const (
	maxWebhooks    = 64
	maxConfig      = 1 << 20
	defaultMaxAge  = 6 * time.Hour
	defaultTimeout = 10 * time.Second
	maxTimeout     = time.Minute
)

// Config is the file that the server reads, mounted from a Secret: all of it may be secret.
type Config struct {
	// Webhooks are told, each on its own.
	Webhooks []Webhook `json:"webhooks"`
	// MaxAge is for how long after its end something is still told. Zero means 6 hours.
	MaxAge metav1.Duration `json:"maxAge,omitzero"`
}

// Webhook is who is told what.
type Webhook struct {
	// Name stands for it in logs and metrics; its URL never does.
	Name string `json:"name"`
	// URL is https; http only for loopback addresses, or with AllowHTTP.
	URL string `json:"url"`
	// AllowHTTP sends in the clear.
	AllowHTTP bool `json:"allowHTTP,omitempty"`
	// Headers are sent with each request: Authorization.
	Headers map[string]string `json:"headers,omitempty"`
	// SigningSecret ("whsec_" and 24 to 64 bytes in base64) signs each request as Standard Webhooks says.
	SigningSecret string `json:"signingSecret,omitempty"`
	// Events are what is told; all where empty.
	Events []EventType `json:"events,omitempty"`
	// Schedules are globs of schedule names: only their silence and their backups are told then, and no restores.
	Schedules []string `json:"schedules,omitempty"`
	// Template is the body, a Go template over Data that makes JSON. Where empty, it is a CloudEvent.
	Template string `json:"template,omitempty"`
	// CABundle are PEM certificates that are trusted beside the system's.
	CABundle string `json:"caBundle,omitempty"`
	// Timeout bounds one attempt. Zero means 10 seconds; a minute is the most.
	Timeout metav1.Duration `json:"timeout,omitzero"`

	secret []byte
	body   *template.Template
	roots  *x509.CertPool
}

// ReadFile reads a configuration from a file.
func ReadFile(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the notifications: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read the notifications: %w", err)
	}
	return Parse(data)
}

// Parse reads a configuration. Errors name the field, and quote nothing that may be secret.
func Parse(data []byte) (*Config, error) {
	if len(data) > maxConfig {
		return nil, fmt.Errorf("read the notifications: the file is over %d bytes", maxConfig)
	}
	var c Config
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return nil, fmt.Errorf("read the notifications: %w", hideValues(err))
	}
	if c.MaxAge.Duration < 0 {
		return nil, errors.New("read the notifications: maxAge: it is negative")
	}
	if c.MaxAge.Duration == 0 {
		c.MaxAge.Duration = defaultMaxAge
	}
	if len(c.Webhooks) > maxWebhooks {
		return nil, fmt.Errorf("read the notifications: webhooks: there are %d, at most %d can be", len(c.Webhooks), maxWebhooks)
	}
	names := map[string]bool{}
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		if err := w.complete(); err != nil {
			return nil, fmt.Errorf("read the notifications: webhooks[%d].%w", i, err)
		}
		if names[w.Name] {
			return nil, fmt.Errorf("read the notifications: webhooks[%d].name: %q is another's already", i, w.Name)
		}
		names[w.Name] = true
	}
	return &c, nil
}

var unknownField = regexp.MustCompile(`unknown field "[A-Za-z0-9_.\[\]-]{1,100}"`)

// hideValues gives an error without the text of the file, which decoders quote; the name of an unknown field may be told.
func hideValues(err error) error {
	if field := unknownField.FindString(err.Error()); field != "" {
		return errors.New(field)
	}
	return errors.New("it is not YAML of the form that docs/notifications.md shows; what exactly is wrong is not repeated here, as it may be secret")
}

var webhookName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// complete checks a webhook and reads what its fields hold.
func (w *Webhook) complete() error {
	if !webhookName.MatchString(w.Name) {
		return errors.New("name: it is to be 1 to 63 lower case letters, digits and dashes")
	}
	if err := w.checkURL(); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	for name, value := range w.Headers {
		if err := checkHeader(name, value); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
	}
	for i, e := range w.Events {
		if !slices.Contains(allEvents, e) {
			return fmt.Errorf("events[%d]: it is not one of %v", i, allEvents)
		}
	}
	for i, glob := range w.Schedules {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return fmt.Errorf("schedules[%d]: it is not a glob: *, ? and [a-z] can be used", i)
		}
	}
	if t := w.Timeout.Duration; t < 0 || t > maxTimeout {
		return fmt.Errorf("timeout: it is to be at most %s", maxTimeout)
	} else if t == 0 {
		w.Timeout.Duration = defaultTimeout
	}
	return w.readSecrets()
}

func (w *Webhook) checkURL() error {
	u, err := url.Parse(w.URL)
	if err != nil || u.Host == "" {
		return errors.New("it is not an absolute URL") // the parser would quote it
	}
	if u.User != nil || u.Fragment != "" {
		return errors.New("it may have no user and no fragment: put credentials into headers")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme != "http":
		return errors.New("it is to begin with https://")
	case !w.AllowHTTP && !loopback(u.Hostname()):
		return errors.New("it is to begin with https://; what is sent in the clear can be read and changed on its way: if that is meant, set allowHTTP")
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// ownHeaders are set by the server itself.
var ownHeaders = []string{"Content-Type", "Content-Length", "Host", "User-Agent", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"}

var headerName = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~-]{1,100}$`)

func checkHeader(name, value string) error {
	if !headerName.MatchString(name) {
		return errors.New("a name is not that of an HTTP header")
	}
	if slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)) {
		return fmt.Errorf("%s is set by the server", http.CanonicalHeaderKey(name))
	}
	if strings.ContainsAny(value, "\r\n\x00") {
		return fmt.Errorf("the value of %s has a line break: does it end in one?", http.CanonicalHeaderKey(name))
	}
	return nil
}

func (w *Webhook) readSecrets() error {
	if w.SigningSecret != "" {
		text, ok := strings.CutPrefix(w.SigningSecret, "whsec_")
		key, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(key) < 24 || len(key) > 64 {
			return errors.New("signingSecret: it is to be whsec_ and 24 to 64 random bytes in base64, as from: echo whsec_$(head -c 32 /dev/urandom | base64)")
		}
		w.secret = key
	}
	if w.Template != "" {
		body, err := parseTemplate(w.Template)
		if err != nil {
			return fmt.Errorf("template: %w", err)
		}
		w.body = body
	}
	if w.CABundle != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			return fmt.Errorf("caBundle: read the system's certificates: %w", err)
		}
		if !roots.AppendCertsFromPEM([]byte(w.CABundle)) {
			return errors.New("caBundle: it holds no PEM certificate")
		}
		w.roots = roots
	}
	return nil
}

// wants says whether a webhook is told of a notice.
func (w *Webhook) wants(n *notice) bool {
	if len(w.Events) > 0 && !slices.Contains(w.Events, n.data.Event) {
		return false
	}
	if len(w.Schedules) == 0 {
		return true
	}
	return n.data.Schedule != "" && slices.ContainsFunc(w.Schedules, func(glob string) bool {
		ok, err := path.Match(glob, n.data.Schedule)
		return ok && err == nil
	})
}
