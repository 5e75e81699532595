package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// exitCodesTopic is "kedge help exit-codes".
func exitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("Scripts can rely on these exit codes:\n\n")
	for _, row := range exitTable {
		fmt.Fprintf(&b, "  %3d  %-12s %s\n", row.Code, row.Name, wrap(row.Meaning, 20))
	}
	return &cobra.Command{Use: "exit-codes", Short: "What each exit code means", Long: strings.TrimRight(b.String(), "\n")}
}

// environmentTopic is "kedge help environment".
func environmentTopic() *cobra.Command {
	return &cobra.Command{Use: "environment", Short: "Environment variables and files", Long: `Environment variables:

  KEDGE_CONFIG             the configuration file (--config)
  KEDGE_LOCAL              true or false: whether commands run in this process (--local)
  KEDGE_NAMESPACE          the namespace of the server's objects (--kedge-namespace)
  KEDGE_AGE_IDENTITY_FILE  the age identity that opens locations (--age-identity-file)
  KEDGE_STATE_DIR          where restores keep their journals (default $XDG_STATE_HOME/kedge, else ~/.local/state/kedge)
  KUBECONFIG               the kubeconfig (--kubeconfig)
  AWS_*                    what the AWS SDK understands: credentials, profile, region, …
  NO_COLOR                 print no colour, whatever its value
  TMPDIR                   where temporary files go (--spool-dir); they are encrypted

A flag goes before the environment, and the environment before the configuration file.

The configuration file (YAML):

  apiVersion: cli.kedge.dev/v1alpha1
  kind: Config
  local: true                      # run with --local unless told otherwise
  namespace: kedge                 # of the server's objects
  ageIdentityFiles:                # tried when backups are read
  - /home/me/kedge-identity.txt
  locations:                       # BackupStorageLocation objects of kedge.dev/v1alpha1
  - apiVersion: kedge.dev/v1alpha1
    kind: BackupStorageLocation
    metadata: {name: prod}
    spec:
      default: true
      publicKey: age1…
      s3: {bucket: acme-backups, region: eu-central-1}`}
}
