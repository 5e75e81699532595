package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// giveBackStart gives back the pages of the program's own file that its start has touched: what 1,300 packages do to begin with is
// some 45 MiB of code and tables, of which a command needs a third again. Those come back from the page cache when they are touched
// (madvise(2), MADV_DONTNEED on pages of a file that nobody writes to). Where it cannot be done, nothing is lost.
//
// A mapping of which any page is no longer the file's is left alone: in a position-independent program the loader has written to its tables.
func giveBackStart() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/smaps") // proc_pid_smaps(5)
	if err != nil {
		return
	}
	defer maps.Close()
	var low, high uint64 // of the mapping that the lines are about; low is 0 where it stays
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		if !strings.HasSuffix(fields[0], ":") {
			low, high = ownPages(fields, exe)
			continue
		}
		switch fields[0] {
		case "Anonymous:":
			if fields[1] != "0" {
				low = 0
			}
		case "VmFlags:": // the last line about it
			if low > 0 {
				_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, uintptr(low), uintptr(high-low), syscall.MADV_DONTNEED)
			}
			low = 0
		}
	}
}

// ownPages gives the addresses of a mapping that is of the program's file, and that nothing writes to; else zeros.
func ownPages(fields []string, exe string) (low, high uint64) {
	if len(fields) != 6 || fields[5] != exe || strings.Contains(fields[1], "w") {
		return 0, 0
	}
	from, to, _ := strings.Cut(fields[0], "-")
	low, errLow := strconv.ParseUint(from, 16, 64)
	high, errHigh := strconv.ParseUint(to, 16, 64)
	if errLow != nil || errHigh != nil || low >= high {
		return 0, 0
	}
	return low, high
}
