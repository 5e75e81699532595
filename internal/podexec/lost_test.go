package podexec_test

import (
	"errors"
	"net"
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
