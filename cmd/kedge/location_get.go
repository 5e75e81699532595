package main

import (
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kedge.dev/kedge/api/v1alpha1"
	"kedge.dev/kedge/internal/term"
)

func (a *app) locationGetCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "get [NAME]",
		Aliases: []string{"list", "ls"},
		Short:   "List the locations",
		Args:    argsBetween(0, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, r, err := a.chooseLocations(cmd.Context())
			if err != nil {
				return atCommand("get locations", err)
			}
			if r != nil {
				return r.getLocations(cmd.Context(), &out, strings.Join(args, ""))
			}
			locations := c.Locations
			if len(args) == 1 {
				one, err := c.location(args[0])
				if err != nil {
					return err
				}
				locations = []v1alpha1.BackupStorageLocation{*one}
				if out.structured() {
					return a.printStructured(out.format, one)
				}
			}
			return a.printLocations(&out, locations)
		},
	}
	out.bind(cmd.Flags(), formatTable, formatWide, formatJSON, formatYAML, formatName)
	a.kube.bind(cmd.Flags())
	return cmd
}

func (a *app) printLocations(out *outputFlag, locations []v1alpha1.BackupStorageLocation) error {
	if out.structured() {
		return a.printStructured(out.format, v1alpha1.BackupStorageLocationList{
			TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BackupStorageLocationList"},
			Items:    locations,
		})
	}
	table := term.Table{Columns: []term.Column{{Name: "NAME"}, {Name: "DEFAULT"}, {Name: "ACCESS"}, {Name: "WHERE"}, {Name: "REGION", Wide: true}, {Name: "KMS KEY", Wide: true}, {Name: "PUBLIC KEY", Wide: true}}}
	for _, l := range locations {
		if out.format == formatName {
			a.printf("%s\n", l.Name)
			continue
		}
		access, isDefault, region := "read-write", "", ""
		if l.Spec.ReadOnly {
			access = "read-only"
		}
		if l.Spec.Default {
			isDefault = "yes"
		}
		if l.Spec.S3 != nil {
			region = l.Spec.S3.Region
		}
		table.Add(l.Name, isDefault, access, where(&l.Spec), region, l.Spec.KMSKeyID, l.Spec.PublicKey)
	}
	if out.format == formatName {
		return nil
	}
	return a.printTable(&table, out.format, `No locations. "kedge location create" makes one.`)
}
