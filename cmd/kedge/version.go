package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"kedge.dev/kedge/backup/archive"
)

// versionInfo is what "kedge version -o json" prints.
type versionInfo struct {
	Version       string `json:"version"`
	Commit        string `json:"commit,omitempty"`
	GoVersion     string `json:"goVersion"`
	Platform      string `json:"platform"`
	ArchiveFormat int    `json:"archiveFormat"`
}

func (a *app) versionCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary and of the archive format that it writes",
		Args:  exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			info := currentVersion()
			if out.structured() {
				return a.printStructured(out.format, info)
			}
			a.printf("kedge %s\ncommit %s\n%s %s\narchive format %d\n", info.Version, orElse(info.Commit, "unknown"), info.GoVersion, info.Platform, info.ArchiveFormat)
			return nil
		},
	}
	out.bind(cmd.Flags(), formatTable, formatJSON, formatYAML)
	return cmd
}

// currentVersion is what the linker was told, or what the Go tool recorded.
func currentVersion() versionInfo {
	info := versionInfo{Version: version, Commit: commit, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, ArchiveFormat: archive.FormatVersion}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	for _, setting := range build.Settings {
		if setting.Key == "vcs.revision" && info.Commit == "" {
			info.Commit = setting.Value[:min(12, len(setting.Value))]
		}
	}
	return info
}
