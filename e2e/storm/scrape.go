package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	mispredictions = "numalane_ledger_mispredictions_total"
	acknowledged   = "numalane_ledger_bind_to_acknowledged_seconds"
	published      = "numalane_plugin_admission_to_published_seconds"
)

type families map[string]*dto.MetricFamily

// scrape reads the metrics of a daemon; nothing of one that serves none.
func scrape(ctx context.Context, addr string) (families, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", addr, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, nil
	}
	return parse(resp.Body)
}

func parse(r io.Reader) (families, error) {
	p := expfmt.NewTextParser(model.UTF8Validation)
	f, err := p.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return f, nil
}

// metrics adds up what the daemons count. Killed ones have begun anew: it is
// what they have seen since.
func (s *Storm) metrics(ctx context.Context, t *Tally) error {
	var all []families
	var errs []error
	if s.Extender {
		f, err := scrape(ctx, s.address)
		all, errs = append(all, f), append(errs, err)
	}
	for _, m := range s.members {
		f, err := scrape(ctx, m.Metrics)
		all, errs = append(all, f), append(errs, err)
	}
	for _, f := range all {
		for _, m := range f[mispredictions].GetMetric() {
			t.MispredictionsKnown = true
			t.Mispredictions += m.GetCounter().GetValue()
		}
	}
	for _, name := range []string{acknowledged, published} {
		if h := collect(all, name); h.count > 0 {
			s.say("%s: p50 %s, p99 %s of %d", name, seconds(h.quantile(0.5)), seconds(h.quantile(0.99)), h.count)
		}
	}
	if t.MispredictionsKnown {
		s.say("%s: %.0f", mispredictions, t.Mispredictions)
	}
	return errors.Join(errs...)
}

// histogram is one of several daemons.
type histogram struct {
	count   uint64
	buckets map[float64]uint64 // cumulative counts by upper bound
	bounds  []float64
}

func collect(all []families, name string) *histogram {
	h := &histogram{buckets: map[float64]uint64{}}
	for _, f := range all {
		for _, m := range f[name].GetMetric() {
			h.count += m.GetHistogram().GetSampleCount()
			for _, b := range m.GetHistogram().GetBucket() {
				if _, known := h.buckets[b.GetUpperBound()]; !known {
					h.bounds = append(h.bounds, b.GetUpperBound())
				}
				h.buckets[b.GetUpperBound()] += b.GetCumulativeCount()
			}
		}
	}
	return h
}

// quantile is the upper bound of the bucket that it falls into.
func (h *histogram) quantile(q float64) float64 {
	least := math.Inf(1)
	for _, bound := range h.bounds {
		if float64(h.buckets[bound]) >= q*float64(h.count) {
			least = min(least, bound)
		}
	}
	return least
}

func seconds(bound float64) string {
	if math.IsInf(bound, 1) {
		return "beyond the last bucket"
	}
	return "≤ " + strings.TrimSpace(time.Duration(bound*float64(time.Second)).String())
}
