package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-cdp/weft/pkg/journey"
)

func newJourneyCommand(*app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journey",
		Short: "Check and preview the journey files that marketers edit",
		Long: `Check and preview the journey files that marketers edit. A running activator takes a changed file without a restart;
carts that are under way keep the version they began with.`,
		Example: `  weft journey check schemas/journeys/abandoned-cart.yaml
  weft journey preview schemas/journeys/abandoned-cart.yaml`,
		GroupID: groupTools,
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJourneyCheckCommand(), newJourneyPreviewCommand())
	return cmd
}

func newJourneyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE...",
		Short:   "Name every fault of journey files with its line",
		Long:    "Name every fault of journey files with its line. Exit status 1 if there is any.",
		Example: "  weft journey check schemas/journeys/*.yaml",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			var failed error
			for _, file := range files {
				j, faults := journey.Check(file)
				for _, f := range faults {
					cmd.PrintErrln(f)
					failed = errSilent
				}
				if len(faults) == 0 {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: journey %s, version %s: no faults\n", file, j.Name, j.Version); err != nil {
						return err
					}
				}
			}
			return failed
		},
	}
}

func newJourneyPreviewCommand() *cobra.Command {
	var cartFile string
	var html bool
	cmd := &cobra.Command{
		Use:   "preview FILE",
		Short: "Render the mail of a journey file",
		Long: `Render the mail of a journey file: subject and text, or the HTML with --html. The cart is a sample, or that of --cart:
the properties of a Cart Viewed event (cart_id, currency, products), with first_name and brand beside them if wanted.`,
		Example: `  weft journey preview schemas/journeys/abandoned-cart.yaml
  weft journey preview schemas/journeys/abandoned-cart.yaml --cart cart.json
  weft journey preview schemas/journeys/abandoned-cart.yaml --html > mail.html`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			var cart []byte
			if cartFile != "" {
				var err error
				if cart, err = os.ReadFile(cartFile); err != nil { //nolint:gosec // the user's own file
					return fmt.Errorf("read cart: %w", err)
				}
			}
			mail, err := journey.Preview(files[0], cart, time.Now())
			if err != nil {
				return err
			}
			if html {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), mail.HTML)
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Subject: %s\n\n%s\n", mail.Subject, mail.Text)
			return err
		},
	}
	cmd.Flags().StringVar(&cartFile, "cart", "", "JSON file of a cart (default: a sample)")
	cmd.Flags().BoolVar(&html, "html", false, "print the HTML part instead of the text")
	return cmd
}
