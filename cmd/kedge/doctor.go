package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/internal/kube"
	"kedge.dev/kedge/plugins"
)

// maxSkew is how far the clocks of this machine and of a server may be apart; S3 refuses requests at 15 minutes.
const maxSkew = 5 * time.Minute

// maxNamed is how many things of a kind a finding names.
const maxNamed = 10

func (a *app) doctorCommand() *cobra.Command {
	var out outputFlag
	var location string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check cluster, rights, bucket, keys and clock, and say what to do",
		Long: `Check everything that a backup and a restore need: that the cluster answers, what the account may read and create there and whether it may run hooks, that the
location can be read and written and its key opens, and that the clocks agree. Each finding that is not good says what to do.

Where commands go to a server, it is checked instead of the location of this machine: its kinds, its Deployment and version, whether one
works, what it says of its locations, what this account may ask of it, and whether the namespace and the Secret of its movers are there.

The exit code is 1 where something failed. What is written to the bucket for the check is removed again.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			m, err := a.mode(c)
			if err != nil {
				return err
			}
			findings := a.checkCluster(cmd.Context())
			if m == modeServer || m == modeUnsaid && a.serverThere(cmd.Context()) {
				return a.printFindings(&out, append(findings, a.checkServer(cmd.Context(), c)...))
			}
			for _, f := range a.checkLocation(cmd.Context(), c, location) {
				f.Name = "location: " + f.Name
				findings = append(findings, f)
			}
			return a.printFindings(&out, findings)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	bindLocation(cmd.Flags(), &location)
	a.keys.bindIdentities(cmd.Flags())
	a.kube.bind(cmd.Flags())
	return cmd
}

// checkCluster looks at what a backup and a restore need of the cluster.
func (a *app) checkCluster(ctx context.Context) []plugins.Finding {
	client, name, err := a.cluster(0)
	if err != nil {
		return []plugins.Finding{a.finding(ctx, "cluster", err, "")}
	}
	info, err := client.ClusterInfo(ctx)
	findings := []plugins.Finding{a.finding(ctx, "cluster", err, fmt.Sprintf("%s (%s) answers with version %s", name, client.Server(), info.Version))}
	if err != nil {
		return findings
	}
	findings = append(findings, a.checkClock(ctx, client))
	discovery, err := client.Discover(ctx)
	findings = append(findings, a.finding(ctx, "discovery", err, "every API that the cluster offers can be discovered"))
	if err != nil {
		return findings
	}
	if n := len(findings) - 1; len(discovery.Failed) > 0 {
		findings[n] = brokenAPIs(discovery.Failed)
	}
	return append(findings, a.checkRights(ctx, client, discovery, "list", "backup"), a.checkRights(ctx, client, discovery, "create", "restore"), a.checkExec(ctx, client))
}

// checkClock compares our clock with the API server's.
func (a *app) checkClock(ctx context.Context, client *kube.Client) plugins.Finding {
	response, err := client.Do(ctx, kube.Request{Path: "/version"})
	if err != nil {
		return a.finding(ctx, "clock", err, "")
	}
	theirs, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return plugins.Finding{Name: "clock", Level: plugins.LevelWarning, Detail: "the API server does not say what time it has"}
	}
	skew := a.env.Now().Sub(theirs)
	if skew.Abs() > maxSkew {
		return plugins.Finding{
			Name: "clock", Level: plugins.LevelFailed, Remedy: "set this machine's clock by NTP",
			Detail: fmt.Sprintf("this machine's clock and the API server's are %s apart", skew.Abs().Round(time.Second)),
		}
	}
	return plugins.Finding{Name: "clock", Level: plugins.LevelOK, Detail: "this machine's clock agrees with the API server's"}
}

// brokenAPIs names the API groups whose servers do not answer.
func brokenAPIs(failed map[string]error) plugins.Finding {
	names := make([]string, 0, len(failed))
	for name := range failed {
		names = append(names, name)
	}
	sort.Strings(names)
	return plugins.Finding{
		Name: "discovery", Level: plugins.LevelWarning,
		Detail: "these APIs do not answer, so their objects cannot be backed up: " + someOf(names),
		Remedy: "repair the services behind them, or delete their APIService objects where they are left over",
	}
}

// checkRights asks whether the account may use a verb on everything, and if not, on what it may not.
func (a *app) checkRights(ctx context.Context, client *kube.Client, discovery *kube.Discovery, verb, purpose string) plugins.Finding {
	name := "rights to " + verb
	all, err := allowed(ctx, client, verb, "*", "*")
	if err != nil {
		return a.finding(ctx, name, err, "")
	}
	if all {
		return plugins.Finding{Name: name, Level: plugins.LevelOK, Detail: "the account may " + verb + " every resource"}
	}
	var denied []string
	asked := map[string]bool{}
	for _, r := range discovery.Resources {
		if !r.Can("list", "create") || asked[r.GroupResource()] {
			continue
		}
		asked[r.GroupResource()] = true
		ok, err := allowed(ctx, client, verb, r.Group, r.Resource)
		if err != nil {
			return a.finding(ctx, name, err, "")
		}
		if !ok {
			denied = append(denied, r.GroupResource())
		}
	}
	if len(denied) == 0 {
		return plugins.Finding{Name: name, Level: plugins.LevelOK, Detail: "the account may " + verb + " every resource that the cluster has"}
	}
	return plugins.Finding{
		Name: name, Level: plugins.LevelWarning,
		Detail: fmt.Sprintf("the account may not %s %s: %s", verb, plural(len(denied), "resource"), someOf(denied)),
		Remedy: fmt.Sprintf("grant it the verb %q on them for a complete %s, or use another account with --user or --context", verb, purpose),
	}
}

// checkExec asks whether the account may run commands in pods, which hooks do.
func (a *app) checkExec(ctx context.Context, client *kube.Client) plugins.Finding {
	const name = "rights to exec"
	ok, err := reviewAccess(ctx, client, authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Subresource: "exec"})
	switch {
	case err != nil:
		return a.finding(ctx, name, err, "")
	case !ok:
		return plugins.Finding{
			Name: name, Level: plugins.LevelWarning, Detail: "the account may not create pods/exec in every namespace, so hooks cannot run there",
			Remedy: "grant it the verb \"create\" on pods/exec where backups or restores have hooks; without hooks it is not needed",
		}
	}
	return plugins.Finding{Name: name, Level: plugins.LevelOK, Detail: "the account may run the commands of hooks in every pod"}
}

// allowed asks the API server about the account's own rights (SelfSubjectAccessReview of authorization.k8s.io/v1).
func allowed(ctx context.Context, client *kube.Client, verb, group, resource string) (bool, error) {
	return reviewAccess(ctx, client, authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource})
}

func reviewAccess(ctx context.Context, client *kube.Client, attributes authorizationv1.ResourceAttributes) (bool, error) {
	review := authorizationv1.SelfSubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"},
		Spec:     authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
	}
	body, err := json.Marshal(review)
	if err != nil {
		return false, err
	}
	response, err := client.Do(ctx, kube.Request{
		Method: http.MethodPost, Path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", Body: body, ContentType: "application/json", Idempotent: true,
	})
	if err != nil {
		return false, fmt.Errorf("ask for the account's rights: %w", err)
	}
	if err := json.Unmarshal(response.Body, &review); err != nil {
		return false, fmt.Errorf("read the account's rights: %w", err)
	}
	return review.Status.Allowed, nil
}

// someOf names the first of a list.
func someOf(names []string) string {
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}
