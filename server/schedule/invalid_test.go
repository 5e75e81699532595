//go:build unix

package schedule_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kedge.dev/kedge/server/schedule"
	"kedge.dev/kedge/test/testbed"
)

// invalid are specs that cannot be followed. refused is what the newest API server says at create; where it is empty, it cannot know.
// reason is what the controller says where the object is there anyway; where it is empty, every API server refuses it.
var invalid = []struct{ name, spec, refused, reason string }{
	{"empty", `schedule: ""`, "spec.schedule", ""},
	{"missing", `paused: true`, "spec.schedule", ""},
	{"four fields", `schedule: "0 0 * *"`, "write five fields", schedule.ReasonInvalidSchedule},
	{"six fields", `schedule: "0 0 0 * * *"`, "write five fields", schedule.ReasonInvalidSchedule},
	{"words", `schedule: "every day"`, "write five fields", schedule.ReasonInvalidSchedule},
	{"minute 60", `schedule: "60 * * * *"`, "the first field is the minute", schedule.ReasonInvalidSchedule},
	{"empty list", `schedule: "1,,2 * * * *"`, "the first field is the minute", schedule.ReasonInvalidSchedule},
	{"hour 24", `schedule: "0 24 * * *"`, "the second field is the hour", schedule.ReasonInvalidSchedule},
	{"day 0", `schedule: "0 0 0 * *"`, "the third field is the day of the month", schedule.ReasonInvalidSchedule},
	{"last day", `schedule: "0 0 L * *"`, "the third field is the day of the month", schedule.ReasonInvalidSchedule},
	{"month 13", `schedule: "0 0 1 13 *"`, "the fourth field is the month", schedule.ReasonInvalidSchedule},
	{"long name of a month", `schedule: "0 0 1 june *"`, "the fourth field is the month", schedule.ReasonInvalidSchedule},
	{"day 7", `schedule: "0 0 * * 7"`, "the fifth field is the day of the week", schedule.ReasonInvalidSchedule},
	{"long name of a day", `schedule: "0 0 * * sunday"`, "the fifth field is the day of the week", schedule.ReasonInvalidSchedule},
	{"reversed", `schedule: "0 18-8 * * *"`, "", schedule.ReasonInvalidSchedule},
	{"step of none", `schedule: "*/0 * * * *"`, "", schedule.ReasonInvalidSchedule},
	{"30 February", `schedule: "0 0 30 2 *"`, "it never comes", schedule.ReasonInvalidSchedule},
	{"31 June", `schedule: "0 0 31 jun ?"`, "it never comes", schedule.ReasonInvalidSchedule},
	{"31 of short months", `schedule: "0 0 31 4,6 *"`, "", schedule.ReasonInvalidSchedule},
	{"no such @", `schedule: "@fortnightly"`, "no such name", schedule.ReasonInvalidSchedule},
	{"@every without", `schedule: "@every"`, "after @every comes a distance", schedule.ReasonInvalidSchedule},
	{"@every day", `schedule: "@every 1d"`, "after @every comes a distance", schedule.ReasonInvalidSchedule},
	{"@every second", `schedule: "@every 1s"`, "", schedule.ReasonInvalidSchedule},
	{"zone in the expression", `schedule: "TZ=Europe/Berlin 0 0 * * *"`, "spec.timeZone", schedule.ReasonInvalidSchedule},
	{"cron zone in the expression", `schedule: "CRON_TZ=UTC 0 0 * * *"`, "spec.timeZone", schedule.ReasonInvalidSchedule},
	{"zone with a blank", `{schedule: "@daily", timeZone: "Europe / Berlin"}`, "such as Europe/Berlin", schedule.ReasonInvalidTimeZone},
	{"zone as offset", `{schedule: "@daily", timeZone: "+02:00"}`, "such as Europe/Berlin", schedule.ReasonInvalidTimeZone},
	{"local zone", `{schedule: "@daily", timeZone: "Local"}`, "such as Europe/Berlin", schedule.ReasonInvalidTimeZone},
	{"unknown zone", `{schedule: "@daily", timeZone: "Mars/Olympus"}`, "", schedule.ReasonInvalidTimeZone},
	{"policy", `{schedule: "@daily", missedRuns: "Sometimes"}`, "CatchUp", ""},
	{"deadline in days", `{schedule: "@daily", startingDeadline: "1d"}`, "write a duration", ""},
	{"negative deadline", `{schedule: "@daily", startingDeadline: "-5m"}`, "at least 10s", schedule.ReasonInvalidSchedule},
	{"short deadline", `{schedule: "@daily", startingDeadline: "0s"}`, "at least 10s", schedule.ReasonInvalidSchedule},
	{"jitter as a number", `{schedule: "@daily", jitter: 5}`, "spec.jitter", ""},
	{"jitter in words", `{schedule: "@daily", jitter: "a bit"}`, "write a duration", ""},
	{"negative jitter", `{schedule: "@daily", jitter: "-1m"}`, "between 0s and 24h", schedule.ReasonInvalidSchedule},
	{"long jitter", `{schedule: "@daily", jitter: "25h"}`, "between 0s and 24h", schedule.ReasonInvalidSchedule},
	{"one name for all", `{schedule: "@daily", nameTemplate: "nightly"}`, "it needs {time}", schedule.ReasonInvalidNameTemplate},
	{"no such placeholder", `{schedule: "@daily", nameTemplate: "{name}-{time}"}`, "besides {schedule} and {time}", schedule.ReasonInvalidNameTemplate},
	{"capitals", `{schedule: "@daily", nameTemplate: "Nightly-{time}"}`, "besides {schedule} and {time}", schedule.ReasonInvalidNameTemplate},
	{"hyphen at the end", `{schedule: "@daily", nameTemplate: "{time}-"}`, "begins and ends with a letter or digit", schedule.ReasonInvalidNameTemplate},
	{"negative retention", `{schedule: "@daily", retention: {keepLast: -1}}`, "spec.retention.keepLast", ""},
	{"cancelled at once", `{schedule: "@daily", template: {spec: {cancel: true}}}`, "spec.paused", schedule.ReasonInvalidTemplate},
	{"selection", `{schedule: "@daily", template: {spec: {includedNamespaces: ["a b"]}}}`, "", schedule.ReasonInvalidTemplate},
	{"volumes", `{schedule: "@daily", template: {spec: {volumes: {policies: [{minSize: 2Gi, maxSize: 1Gi, method: Copy}]}}}}`, "", schedule.ReasonInvalidTemplate},
	{"expression", `{schedule: "@daily", template: {spec: {expression: "object.kind =="}}}`, "", schedule.ReasonInvalidTemplate},
	{"label", `{schedule: "@daily", template: {metadata: {labels: {a b: c}}}}`, "", schedule.ReasonInvalidTemplate},
	{"annotation", `{schedule: "@daily", template: {metadata: {annotations: {kedge.dev/archive-uid: x}}}}`, "", schedule.ReasonInvalidTemplate},
}

func object(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	indented := "\n  " + strings.ReplaceAll(spec, "\n", "\n  ")
	objects, err := testbed.Parse([]byte("apiVersion: kedge.dev/v1alpha1\nkind: Schedule\nspec:" + indented + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	objects[0].SetNamespace(namespace)
	objects[0].SetName(name)
	return objects[0]
}

// TestRefusedAtApply creates invalid schedules on the newest API server.
func TestRefusedAtApply(t *testing.T) {
	p := newPlace(t, "1.36.3")
	for _, c := range invalid {
		t.Run(c.name, func(t *testing.T) {
			err := p.Create(t.Context(), object(t, p.namespace, "refused", c.spec), client.DryRunAll)
			if c.refused == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "spec") || !strings.Contains(err.Error(), c.refused) {
				t.Fatalf("%v, want it to say %q", err, c.refused)
			}
			t.Log(err)
		})
	}
	err := p.Create(t.Context(), object(t, p.namespace, strings.Repeat("long", 16), `schedule: "@daily"`), client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), "metadata.name is at most 63 bytes") {
		t.Errorf("a long name: %v", err)
	}
}

// TestAcceptedAtApply creates schedules that are fine.
func TestAcceptedAtApply(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		for _, spec := range []string{
			`schedule: "*/15 0-6,22,23 1-7,15 jan,MAR-Oct/2 mon-fri"`,
			`schedule: "0\t2  ? * 0"`,
			`schedule: "5 04 29 02 *"`,
			`{schedule: "@every 1h30m", timeZone: "America/Argentina/Buenos_Aires"}`,
			`{schedule: "@daily", timeZone: "", startingDeadline: "1h0m0s", jitter: "0s", nameTemplate: ""}`,
			`{schedule: "@daily", timeZone: "Etc/GMT+5", startingDeadline: "1.5h", jitter: "90s", nameTemplate: "{time}.{schedule}-full"}`,
			`{schedule: "0 0 31 2 1", template: {spec: {ttl: "720h"}}}`,
		} {
			o := object(t, p.namespace, "fine", spec)
			if err := p.Create(t.Context(), o); err != nil {
				t.Errorf("%s: %v", spec, err)
				continue
			}
			is(t, spec, condition(p.look(t, "fine"), "Ready"), "True Valid")
			if err := p.Delete(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestStalled creates invalid schedules on an API server that knows no expressions in definitions: the controller says what is wrong.
func TestStalled(t *testing.T) {
	p := newPlace(t, "1.24.17")
	for _, c := range invalid {
		t.Run(c.name, func(t *testing.T) {
			o := object(t, p.namespace, "invalid", c.spec)
			err := p.Create(t.Context(), o)
			if c.reason == "" {
				if err == nil {
					t.Fatal("accepted")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := p.look(t, "invalid")
			is(t, "ready", condition(s, "Ready"), "False "+c.reason)
			if message := s.Status.Conditions[0].Message; !strings.HasPrefix(message, "spec.") {
				t.Errorf("the message names no field: %s", message)
			}
			is(t, "backups", p.backups(t, "invalid"), "")
			if err := p.Delete(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		})
	}
	p.reconciler.RequireServiceAccount = true
	p.schedule(t, "anonymous")
	is(t, "ready", condition(p.look(t, "anonymous"), "Ready"), "False "+schedule.ReasonServiceAccountRequired)
	p.schedule(t, strings.Repeat("long", 16))
	is(t, "ready", condition(p.look(t, strings.Repeat("long", 16)), "Ready"), "False "+schedule.ReasonInvalidName)
}
