package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestGiveBackStart reads how much of its own file the process has in memory, before and after.
func TestGiveBackStart(t *testing.T) {
	before := rssFile(t)
	giveBackStart()
	after := rssFile(t)
	if after > before*2/3 {
		t.Errorf("%d KiB of the program's file are in memory, and were %d before: nothing was given back", after, before)
	}
	if got := strings.Repeat("kedge", 2); got != "kedgekedge" {
		t.Errorf("the program computes %q", got)
	}
}

// rssFile reads RssFile, in KiB (proc_pid_status(5)).
func rssFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatalf("no RssFile in %s", status)
	}
	return n
}
