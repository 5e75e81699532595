package alerts

import (
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// every is how often the replicas are scraped, from before a scenario's moment to after the longest wait of a rule.
const (
	every  = 2 * time.Minute
	before = time.Hour
	after  = 8 * 24 * time.Hour
)

// store shows a scenario as two replicas that are scraped. What is counted goes on as fast as between the two scrapes of the file.
func (s *scenario) store() storage.Queryable {
	var all []storage.Series
	for _, replica := range []string{"a", "b"} {
		for _, one := range s.series {
			l := labels.NewBuilder(one.labels).Set("instance", replica).Set("pod", "kedge-"+replica).Set("job", "kedge").Labels()
			r := ramp{from: s.at.Add(-before), first: one.first, slope: (one.last - one.first) / float64(time.Hour/every)}
			all = append(all, &storage.SeriesEntry{Lset: l, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return storage.NewListSeriesIterator(r) }})
		}
	}
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		set := &seriesSet{at: -1}
		for _, one := range all {
			if matches(one.Labels(), matchers) {
				set.series = append(set.series, one)
			}
		}
		return set
	}}}
}

func matches(l labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// ramp is samples on a line.
type ramp struct {
	from         time.Time
	first, slope float64
}

// Len implements storage.Samples.
func (r ramp) Len() int { return int((before + after) / every) }

// Get implements storage.Samples.
func (r ramp) Get(i int) chunks.Sample {
	return sample{t: r.from.Add(time.Duration(i) * every).UnixMilli(), v: r.first + r.slope*float64(i)}
}

type sample struct {
	t int64
	v float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

type seriesSet struct {
	series []storage.Series
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }
