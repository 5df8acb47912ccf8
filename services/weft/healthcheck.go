package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// healthTimeout is below the timeout that a container engine gives a health check, so that the reason is told.
	healthTimeout = 3 * time.Second
	// maxHealthAnswer bounds what is read of an answer: why a process is not ready is a line or two.
	maxHealthAnswer = 4 << 10
)

func newHealthcheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "healthcheck",
		Short:  "Ask the service on this machine whether it is ready (for container engines)",
		Hidden: true,
		Long: `Ask /readyz of admin.listen, as the health check of a container: the image has neither shell nor curl. Exit status 0 if
the service is ready, else 1 with the reason.`,
		Example: "  docker compose exec collector /weft healthcheck",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			answer, err := askReady(cmd.Context(), cfg.Admin.Listen)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), answer)
			return err
		},
	}
}

// askReady returns what /readyz of the admin server that listens at address says, and an error unless that is "ready".
func askReady(ctx context.Context, address string) (string, error) {
	if address == "" {
		return "", errors.New("admin.listen is empty: nobody answers for this service")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("admin.listen: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	url := "http://" + net.JoinHostPort(cmp.Or(host, "localhost"), port) + "/readyz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", url, err)
	}
	// The service is on this machine: no proxy, and no connection that outlives the question.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", url, err)
	}
	defer resp.Body.Close() //nolint:errcheck // was only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthAnswer))
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", url, err)
	}
	answer := strings.TrimSpace(string(text))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("not ready: %s", answer)
	}
	return answer, nil
}
