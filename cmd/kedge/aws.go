package main

import "github.com/spf13/cobra"

func (a *app) awsCommand() *cobra.Command {
	return group("aws", "What Kedge needs of AWS", "What Kedge needs of AWS. These commands only print; they talk to nobody.", a.awsPolicyCommand(), a.awsCopyPolicyCommand())
}
