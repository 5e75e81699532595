package s3

import (
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"

	"kedge.dev/kedge/internal/gate"
)

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
