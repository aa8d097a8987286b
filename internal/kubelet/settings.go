package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// settings keeps the kubelet's configuration, which changes only when the
// kubelet restarts. One goroutine at a time.
type settings struct {
	o   *Options
	log *slog.Logger

	config    *Config // the last good one; nil: none yet
	byConfigz bool    // config is /configz's answer
	stale     bool    // the kubelet restarted since, or a better source may answer yet
	err       error   // of the last try; nil when config is good
	next      time.Time
	wait      time.Duration
	said      string
}

const (
	firstConfigRetry = time.Second
	lastConfigRetry  = time.Minute
)

// restart marks the configuration as that of a kubelet that is gone.
func (s *settings) restart() { s.stale, s.next, s.wait = true, time.Time{}, 0 }

// get reads the configuration when it is due. /configz comes first: it alone
// knows what the kubelet's flags changed. While a kubelet that answered there
// before does not yet answer again, the last good configuration stands.
func (s *settings) get(ctx context.Context) (Config, error) {
	if !s.stale || time.Now().Before(s.next) {
		return s.known()
	}
	var configzErr error
	if s.o.ConfigzURL != "" {
		var c Config
		if c, configzErr = s.o.configz(ctx); configzErr == nil {
			s.set(c, true)
			s.stale = false
			s.say(slog.LevelInfo, "the kubelet's configuration is from its configz", "url", s.o.ConfigzURL)
			return s.known()
		}
	}
	if s.byConfigz && !errors.Is(configzErr, errRefused) {
		s.later()
		return s.known()
	}
	c, err := ReadConfigFiles(s.o.ConfigFile, s.o.ConfigDropInDir)
	if err != nil {
		if configzErr != nil {
			err = fmt.Errorf("%w; %w", configzErr, err)
		}
		s.err = fmt.Errorf("the kubelet's configuration is not to be had: %w", err)
		s.say(slog.LevelWarn, "cannot tell how the kubelet is configured", "err", s.err)
		s.later()
		return s.known()
	}
	s.set(c, false)
	if configzErr == nil || errors.Is(configzErr, errRefused) {
		s.stale = false
	} else {
		s.later()
	}
	if configzErr != nil {
		s.say(slog.LevelWarn, "the kubelet's configuration is from its file, which does not tell what its flags changed",
			"file", s.o.ConfigFile, "configz", configzErr)
	} else {
		s.say(slog.LevelInfo, "the kubelet's configuration is from its file", "file", s.o.ConfigFile)
	}
	return s.known()
}

func (s *settings) known() (Config, error) {
	if s.config == nil {
		return Config{}, s.err
	}
	return *s.config, nil
}

func (s *settings) set(c Config, byConfigz bool) {
	s.config, s.byConfigz, s.err, s.wait = &c, byConfigz, nil, 0
}

// later plans the next try.
func (s *settings) later() {
	s.wait = min(max(firstConfigRetry, 2*s.wait), lastConfigRetry)
	s.next = time.Now().Add(s.wait)
}

// say logs what is new.
func (s *settings) say(level slog.Level, msg string, args ...any) {
	if text := msg + fmt.Sprint(args...); text != s.said {
		s.said = text
		s.log.Log(context.Background(), level, msg, args...)
	}
}
