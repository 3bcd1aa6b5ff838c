module stonelog/compat/kafka-go

go 1.25

require (
	github.com/segmentio/kafka-go v0.4.51
	stonelog/compat v0.0.0
)

replace stonelog/compat => ../lib/go
