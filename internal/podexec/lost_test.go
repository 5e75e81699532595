package podexec_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"kedge.dev/kedge/internal/podexec"
)

// TestExecUnanswered asks a server that takes connections and is silent: nobody began the command, so it has not run into its timeout.
func TestExecUnanswered(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, scheme := range []string{"http://", "https://"} {
		client, err := podexec.New(&rest.Config{Host: scheme + l.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		err = client.Exec(t.Context(), podexec.Request{Namespace: "shop", Pod: "db", Command: []string{"true"}, Timeout: 100 * time.Millisecond})
		if err == nil || errors.Is(err, podexec.ErrTimeout) || !strings.Contains(err.Error(), "could not be asked for") {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// TestExecReset asks servers that break connections off: the errors name the request without the command's arguments.
func TestExecReset(t *testing.T) {
	secret := "s3cret & \"ü\""
	for name, upgrade := range map[string]func(http.ResponseWriter){
		"at once":     nil,
		"after a no":  func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) },
		"with a bend": func(w http.ResponseWriter) { w.Header().Set("Location", "/else"); w.WriteHeader(http.StatusFound) },
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if upgrade != nil && r.Method == http.MethodGet { // the WebSocket's
				upgrade(w)
				return
			}
			panic(http.ErrAbortHandler)
		}))
		client, err := podexec.New(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		err = client.Exec(t.Context(), podexec.Request{Namespace: "shop", Pod: "db", Command: []string{"/bin/login", secret}, Timeout: 10 * time.Second})
		if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "login") {
			t.Errorf("%s: %v", name, err)
		}
		if upgrade != nil && !strings.Contains(err.Error(), "/api/v1/namespaces/shop/pods/db/exec?…") {
			t.Errorf("%s: it does not say what was asked for: %v", name, err)
		}
		server.Close()
	}
}
