package schedule

import "kedge.dev/kedge/api/v1alpha1"

// JitterOf is for tests.
var JitterOf = jitterOf

// Note is for tests.
func Note(d *Decision, s *v1alpha1.ScheduleStatus) { d.note(s) }
