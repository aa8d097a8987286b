package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	configzTimeout = 2 * time.Second
	configzLimit   = 1 << 20 // bytes; a full KubeletConfiguration has some 6,000
)

// errRefused is wrapped by an answer that another try will not change soon.
var errRefused = errors.New("refused")

func (o *Options) configz(ctx context.Context) (Config, error) {
	ctx, cancel := context.WithTimeout(ctx, configzTimeout)
	defer cancel()
	url := strings.TrimSuffix(o.ConfigzURL, "/") + "/configz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Config{}, fmt.Errorf("ask for configz: %w", err)
	}
	if o.TokenFile != "" {
		token, err := os.ReadFile(o.TokenFile)
		if err != nil {
			return Config{}, fmt.Errorf("read the token for configz: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := o.HTTPClient.Do(req)
	if err != nil {
		return Config{}, fmt.Errorf("ask for configz: %w", err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return Config{}, fmt.Errorf("ask %s: %w: %s: the plugin's service account needs the verb get on nodes/configz", url, errRefused, resp.Status)
	case http.StatusNotFound: // enableDebuggingHandlers: false
		return Config{}, fmt.Errorf("ask %s: %w: %s", url, errRefused, resp.Status)
	default:
		return Config{}, fmt.Errorf("ask %s: %s", url, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, configzLimit))
	if err != nil {
		return Config{}, fmt.Errorf("ask %s: %w", url, err)
	}
	return ParseConfigz(body)
}
