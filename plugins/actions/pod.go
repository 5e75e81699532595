package actions

import (
	"regexp"
	"slices"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

const (
	serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	irsaPath           = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
	podIdentityPath    = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
)

// The API server names what it generates with five of these letters and digits.
var (
	accessVolume = regexp.MustCompile(`^kube-api-access-[bcdfghjklmnpqrstvwxz2456789]{5}$`)
	tokenSecret  = regexp.MustCompile(`^.+-token-[bcdfghjklmnpqrstvwxz2456789]{5}$`)
)

// injectedEnv are variables that EKS' admission webhooks set beside the token that they mount.
var injectedEnv = map[string][]string{
	irsaPath:        {"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"},
	podIdentityPath: {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"},
}

// pod drops what scheduling and admission of the old cluster wrote; the target's write it anew.
func pod() plugins.Action {
	return &rule{
		name:    "Pod",
		matches: on("pods"),
		apply: func(item *plugins.Item) plugins.Decision {
			spec := tree.Map(item.Object, "spec")
			if _, mirror := tree.Annotation(item.Object, "kubernetes.io/config.mirror"); mirror {
				return skip(ReasonNodeBound, "it is a static pod, which its node's kubelet runs")
			}
			switch phase := tree.Text(tree.Map(item.Object, "status"), "phase"); phase {
			case "Succeeded", "Failed":
				return skip(ReasonFinished, "the pod had ended (%s) and would run again", phase)
			}
			// Priority and preemption policy follow from the priority class, overhead from the runtime class; admission
			// refuses numbers that differ from the target's classes. Ephemeral containers cannot be created with a pod.
			tree.Drop(spec, "nodeName", "priority", "preemptionPolicy", "ephemeralContainers")
			if tree.Text(spec, "runtimeClassName") != "" {
				delete(spec, "overhead")
			}
			tree.DropAnnotations(item.Object, "kubernetes.io/psp", "kubernetes.io/limit-ranger", "vpc.amazonaws.com/pod-eni",
				"vpc.amazonaws.com/pod-ips", "cni.projectcalico.org/podIP", "cni.projectcalico.org/podIPs",
				"cni.projectcalico.org/containerID", "k8s.v1.cni.cncf.io/network-status")
			dropTokens(item, spec)
			return goOn
		},
	}
}

// dropTokens drops volumes of tokens that admission added, with their mounts.
func dropTokens(item *plugins.Item, spec map[string]any) {
	mounts := mountPaths(spec)
	gone := map[string]bool{}
	tree.Keep(spec, "volumes", func(volume map[string]any) bool {
		name := tree.Text(volume, "name")
		secretName := tree.Text(tree.Map(volume, "secret"), "secretName")
		switch path := mounts[name]; {
		case accessVolume.MatchString(name) && tree.Has(volume, "projected") && (path == serviceAccountPath || path == ""),
			path == serviceAccountPath && tokenSecret.MatchString(secretName):
			gone[name] = true
		case tree.Has(volume, "projected") && (path == irsaPath || path == podIdentityPath):
			gone[name] = true
			dropEnv(spec, injectedEnv[path])
			item.Remark(ReasonChanged, "the AWS token at %s was dropped; the target's webhook adds its own", path)
		}
		return !gone[name]
	})
	if len(gone) == 0 {
		return
	}
	eachContainer(spec, func(container map[string]any) {
		tree.Keep(container, "volumeMounts", func(mount map[string]any) bool { return !gone[tree.Text(mount, "name")] })
	})
}

// mountPaths gives each volume the path at which containers see it; of several, the first.
func mountPaths(spec map[string]any) map[string]string {
	paths := map[string]string{}
	eachContainer(spec, func(container map[string]any) {
		tree.Each(container, "volumeMounts", func(mount map[string]any) {
			if name := tree.Text(mount, "name"); paths[name] == "" {
				paths[name] = tree.Text(mount, "mountPath")
			}
		})
	})
	return paths
}

func dropEnv(spec map[string]any, names []string) {
	eachContainer(spec, func(container map[string]any) {
		tree.Keep(container, "env", func(env map[string]any) bool { return !slices.Contains(names, tree.Text(env, "name")) })
	})
}

func eachContainer(spec map[string]any, fn func(map[string]any)) {
	tree.Each(spec, "initContainers", fn)
	tree.Each(spec, "containers", fn)
}
