package actions

import (
	"encoding/json"
	"strings"

	"kedge.dev/kedge/internal/tree"
	"kedge.dev/kedge/plugins"
)

// initHookDomains are those of the annotations, the first that an object has counts.
var initHookDomains = []string{"kedge.dev", "velero.io"}

// initHookMark is in every object that has such annotations, itself or in its pods' template.
const initHookMark = "init.hook.restore."

// defaultInitName is what the init container is called where an annotation does not say.
const defaultInitName = "kedge-restore-init"

// initHook adds the init container that a pod's annotations ask for, before the pod's others. A template that asks for one is left as it is: each pod that is
// ever made of it would run the hook again.
func initHook() plugins.Action {
	matches := on("pods", initHookMark)
	for _, workload := range []string{"deployments.apps", "statefulsets.apps", "daemonsets.apps", "replicasets.apps", "replicationcontrollers", "jobs.batch", "cronjobs.batch"} {
		matches = append(matches, on(workload, initHookMark)...)
	}
	return &rule{
		name: "InitHook", matches: matches,
		apply: func(item *plugins.Item) plugins.Decision {
			if item.Ref.Resource != "pods" {
				if prefix, _ := initHookOf(templateOf(item)); prefix != "" {
					item.Remark(ReasonHookLeftOut, "annotation %scontainer-image of its pods' template adds no init container, which every later pod would run again: use post.hook.restore", prefix)
				}
				return goOn
			}
			addInitHook(item)
			return goOn
		},
	}
}

// templateOf is the template of a workload's pods.
func templateOf(item *plugins.Item) map[string]any {
	spec := tree.Map(item.Object, "spec")
	if item.Ref.Resource == "cronjobs" {
		spec = tree.In(spec, "jobTemplate", "spec")
	}
	return tree.Map(spec, "template")
}

// initHookOf finds what the annotations of an object begin with, and the image.
func initHookOf(object map[string]any) (prefix, image string) {
	for _, domain := range initHookDomains {
		prefix := initHookMark + domain + "/"
		if image, ok := tree.Annotation(object, prefix+"container-image"); ok && image != "" {
			return prefix, image
		}
	}
	return "", ""
}

func addInitHook(item *plugins.Item) {
	prefix, image := initHookOf(item.Object)
	if prefix == "" {
		return
	}
	container := map[string]any{"name": defaultInitName, "image": image}
	if name, ok := tree.Annotation(item.Object, prefix+"container-name"); ok && name != "" {
		container["name"] = name
	}
	if text, ok := tree.Annotation(item.Object, prefix+"command"); ok {
		command, err := initCommand(text)
		if err != nil {
			item.Remark(ReasonHookLeftOut, `annotation %scommand begins like a JSON array and is none, so no init container is added: write ["/bin/sh", "-c", "…"]`, prefix)
			return
		}
		container["command"] = command
	}
	spec := tree.Map(item.Object, "spec")
	there := false
	tree.Each(spec, "initContainers", func(c map[string]any) { there = there || tree.Text(c, "name") == container["name"] })
	if there || spec == nil {
		return
	}
	if containers, _ := spec["containers"].([]any); len(containers) > 0 {
		if first, ok := containers[0].(map[string]any); ok { // the hook works on what the application has, and must be admitted as it is
			for _, field := range []string{"volumeMounts", "securityContext"} {
				if v, ok := first[field]; ok {
					container[field] = tree.Copy(v)
				}
			}
		}
	}
	before, _ := spec["initContainers"].([]any)
	spec["initContainers"] = append([]any{container}, before...)
	item.Remark(ReasonChanged, "init container %s was added, as annotation %scontainer-image asks for", container["name"], prefix)
}

// initCommand reads a JSON array, or takes the text for the path of a program.
func initCommand(text string) ([]any, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "[") {
		return []any{text}, nil
	}
	var argv []string
	if err := json.Unmarshal([]byte(text), &argv); err != nil {
		return nil, err
	}
	out := make([]any, len(argv))
	for i := range argv {
		out[i] = argv[i]
	}
	return out, nil
}
