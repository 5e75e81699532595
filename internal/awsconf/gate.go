package awsconf

import (
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"

	"kedge.dev/kedge/internal/gate"
)

// Gated is a client that sends requests which change something only through the gate, asked right before each. Nil gates nothing. What a service
// reads by POST, as EC2 does, waits too.
func Gated(client aws.HTTPClient, g *gate.Gate) aws.HTTPClient {
	if g == nil {
		return client
	}
	return &gatedClient{next: client, gate: g}
}

// gatedClient sends requests that change something only through a gate. It stands below the SDK's retries, which may last minutes.
type gatedClient struct {
	next aws.HTTPClient
	gate *gate.Gate
}

// Do sends one request.
func (c *gatedClient) Do(req *http.Request) (*http.Response, error) {
	if !gate.Reads(req.Method) {
		if err := c.gate.Pass(req.Context()); err != nil {
			return nil, err
		}
	}
	return c.next.Do(req)
}
