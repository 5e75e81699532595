package ebs

import (
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"kedge.dev/kedge/internal/awsconf"
	"kedge.dev/kedge/plugins"
)

// places are the providers of other places, each made once: those with a role keep its credentials.
type places struct {
	cfg aws.Config // of the provider that works by itself

	mu     sync.Mutex
	opened map[plugins.Place]*Provider
}

// At gives the provider of another place: in its region, as its role.
func (p *Provider) At(place plugins.Place) (plugins.SnapshotCopier, error) {
	there, err := p.at(place)
	if err != nil {
		return nil, p.classify("open", place.String(), err)
	}
	return there, nil
}

func (p *Provider) at(place plugins.Place) (*Provider, error) {
	if place == (plugins.Place{}) {
		place.Region = p.places.cfg.Region
	}
	if place.Region == "" {
		return nil, configured("name the region of the copies", "no region is set")
	}
	if place.RoleARN != "" && account(place.RoleARN) == "" {
		return nil, configured("write it as arn:aws:iam::444455556666:role/NAME", "%q is no ARN of a role", place.RoleARN)
	}
	p.places.mu.Lock()
	defer p.places.mu.Unlock()
	if there := p.places.opened[place]; there != nil {
		return there, nil
	}
	cfg := p.places.cfg.Copy()
	if place.RoleARN != "" {
		cfg = awsconf.Assume(cfg, place.RoleARN, place.ExternalID)
	}
	cfg.Region = place.Region
	there, err := New(cfg, p.opts)
	if err != nil {
		return nil, err
	}
	there.places = p.places
	p.places.opened[place] = there
	return there, nil
}

// account is whose the role is; "" where the text is no ARN of a role.
func account(role string) string {
	parsed, err := arn.Parse(role)
	if err != nil || parsed.Service != "iam" {
		return ""
	}
	return parsed.AccountID
}
