package main

import "slices"

// latencies holds one measured value per record, in microseconds; quantiles are exact.
type latencies []uint32

func (l latencies) summary() map[string]any {
	slices.Sort(l)
	at := func(share float64) uint32 {
		if len(l) == 0 {
			return 0
		}
		return l[min(int(float64(len(l))*share), len(l)-1)]
	}
	return map[string]any{"p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": at(1)}
}
