package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/numalane/numalane/internal/config"
	"github.com/numalane/numalane/internal/config/v1alpha1"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, convert and explain pool configurations",
		Long: `config works on pool configurations of either format: numalane's own
(apiVersion numalane.io/v1alpha1) and that of the SR-IOV network device plugin
(resourceList), as JSON or YAML.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newValidateCommand(), newConvertCommand(),
		newPrintCommand("schema", "Print the JSON schema of numalane's own format",
			"  # For an editor\n  numalane-plugin config schema > poolconfiguration.schema.json", v1alpha1.Schema),
		newPrintCommand("print-defaults", "Print an example of numalane's own format, with every key and all defaults",
			"  numalane-plugin config print-defaults > pools.yaml", v1alpha1.Defaults))
	return cmd
}

func newValidateCommand() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Print all mistakes of pool configurations",
		Long: `validate prints every mistake of each FILE with its line and column, and what
the file says without effect as warnings. - is the standard input. The exit code
is 1 when there is a mistake; warnings alone are none.`,
		Example: `  numalane-plugin config validate config.json
  kubectl -n kube-system get configmap sriovdp-config -o jsonpath='{.data.config\.json}' |
    numalane-plugin config validate -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			out, bad := cmd.OutOrStdout(), 0
			for _, file := range files {
				c, err := load(cmd, file, prefix)
				var e *config.Error
				switch {
				case errors.As(err, &e):
					bad++
					tell(out, file+": ", e.Mistakes)
					tell(out, file+": warning: ", e.Warnings)
				case err != nil:
					bad++
					fmt.Fprintln(out, err)
				default:
					tell(out, file+": warning: ", c.Warnings)
					fmt.Fprintf(out, "%s: valid, pools: %d\n", file, len(c.Pools))
				}
			}
			if bad > 0 {
				return fmt.Errorf("not valid: %d of %d", bad, len(files))
			}
			return nil
		},
	}
	addPrefixFlag(cmd, &prefix)
	return cmd
}

func newConvertCommand() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "convert FILE",
		Short: "Print a pool configuration in numalane's own format",
		Long: `convert prints a configuration of the SR-IOV network device plugin, or of
numalane's own in JSON, as YAML of numalane's own format. Both mean the same: the
same devices in the same pools, handed out alike. So health by link stays off,
which that plugin never had: remove "link: false" to have it.

- is the standard input. What the file says without effect is left out, with a
warning.`,
		Example: `  numalane-plugin config convert config.json > pools.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			c, err := load(cmd, files[0], prefix)
			if err != nil {
				return err
			}
			tell(cmd.ErrOrStderr(), files[0]+": warning: ", c.Warnings)
			text, err := c.YAML()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	addPrefixFlag(cmd, &prefix)
	return cmd
}

func newPrintCommand(use, short, example string, text []byte) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(text)
			return err
		},
	}
}

// load reads a file, or the standard input.
func load(cmd *cobra.Command, file, prefix string) (*config.Config, error) {
	if file != "-" {
		return config.Load(file, prefix)
	}
	data, err := io.ReadAll(cmd.InOrStdin())
	if err != nil {
		return nil, fmt.Errorf("read pool configuration: %w", err)
	}
	c, err := config.Parse(data, prefix)
	if err != nil {
		return nil, fmt.Errorf("pool configuration: %w", err)
	}
	return c, nil
}

func tell(w io.Writer, prefix string, ms []config.Mistake) {
	for _, m := range ms {
		fmt.Fprintf(w, "%s%s\n", prefix, m)
	}
}
