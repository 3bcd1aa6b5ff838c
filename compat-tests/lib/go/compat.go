// Package compat is what the Go suites share: the record set, the comparison, the step list and its deadline.
//
// It is not a client and not a test. Every wait has a deadline; a step that did not run is either "fail" or "lacks",
// never silent; the process cannot outlive watchdogTime.
package compat

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

const (
	// Partitions of each topic that holds a record set.
	Partitions = 3
	// StepTime bounds each wait of a step.
	StepTime = 40 * time.Second

	watchdogTime = 240 * time.Second
	// Just below max.message.bytes (1,048,588), and incompressible.
	largeBytes   = 1_040_000
	batchRecords = 120
)

// Header is one name and its value; a nil value is Kafka's null.
type Header struct {
	Name  string
	Value []byte
}

// Record is one record as it was sent, or as it came back.
type Record struct {
	Partition   int32
	Key         []byte
	Value       []byte
	Headers     []Header
	TimestampMs int64
}

// Limits names what a client cannot express; the record set leaves it out.
type Limits struct {
	NoNullHeader bool
	NoEmptyKey   bool
}

// BaseTimestamp is an hour ago in milliseconds, so that retention by time never touches the records.
func BaseTimestamp() int64 {
	return (time.Now().Unix() - 3600) * 1000
}

// RecordSet holds nulls, empties, repeated headers, one large record and a batch of small ones, over all partitions.
func RecordSet(seed int64, baseMs int64, limits Limits) []Record {
	large := make([]byte, largeBytes)
	mathrand.New(mathrand.NewSource(seed)).Read(large)
	nullHeader, emptyKey := Header{"null", nil}, []byte{}
	if limits.NoNullHeader {
		nullHeader.Value = []byte{}
	}
	if limits.NoEmptyKey {
		emptyKey = []byte("k")
	}
	rows := []Record{
		{Key: []byte("key"), Value: []byte("value"), Headers: []Header{{"trace", []byte{0, 1, 254, 255}}}},
		{Value: []byte("null key")},
		{Key: []byte("null value")},
		{Key: []byte("empty value"), Value: []byte{}},
		{Key: emptyKey, Value: []byte("empty key")},
		{Key: []byte("headers"), Value: []byte("many"),
			Headers: []Header{{"a", []byte("1")}, {"a", []byte("2")}, {"empty", []byte{}}, nullHeader}},
		{Key: []byte("schlüssel-鍵"), Value: []byte("wert-値-🪨"), Headers: []Header{{"ünicode", []byte("✓")}}},
		{Key: []byte("large"), Value: large},
	}
	for index := range batchRecords {
		value := fmt.Sprintf("value-%06d %s", index, strings.Repeat("compressible ", 8))
		rows = append(rows, Record{Key: fmt.Appendf(nil, "key-%d", index%7), Value: []byte(value)})
	}
	for index := range rows {
		rows[index].Partition = int32(index % Partitions)
		rows[index].TimestampMs = baseMs + int64(index)*10
	}
	return rows
}

// FoldEmpty turns empty keys, values and header values into nulls, for clients that cannot tell them apart when they
// read.
func FoldEmpty(records []Record) []Record {
	fold := func(data []byte) []byte {
		if len(data) == 0 {
			return nil
		}
		return data
	}
	folded := make([]Record, len(records))
	for index, record := range records {
		record.Key, record.Value = fold(record.Key), fold(record.Value)
		record.Headers = append([]Header(nil), record.Headers...)
		for at := range record.Headers {
			record.Headers[at].Value = fold(record.Headers[at].Value)
		}
		folded[index] = record
	}
	return folded
}

// OfPartition keeps the order.
func OfPartition(records []Record, partition int32) []Record {
	var found []Record
	for _, record := range records {
		if record.Partition == partition {
			found = append(found, record)
		}
	}
	return found
}

// Compare fails unless each partition holds exactly the records sent to it, in order, unchanged.
func Compare(sent, received []Record) {
	for partition := range int32(Partitions) {
		want, have := OfPartition(sent, partition), OfPartition(received, partition)
		for index := range min(len(want), len(have)) {
			Check(same(want[index], have[index]), "partition %d record %d: sent %s, received %s",
				partition, index, show(want[index]), show(have[index]))
		}
		Check(len(want) == len(have), "partition %d: sent %d records, received %d", partition, len(want), len(have))
	}
}

// sameBytes tells null from empty.
func sameBytes(left, right []byte) bool {
	return (left == nil) == (right == nil) && bytes.Equal(left, right)
}

func same(left, right Record) bool {
	if !sameBytes(left.Key, right.Key) || !sameBytes(left.Value, right.Value) ||
		left.TimestampMs != right.TimestampMs || len(left.Headers) != len(right.Headers) {
		return false
	}
	for index, header := range left.Headers {
		other := right.Headers[index]
		if header.Name != other.Name || !sameBytes(header.Value, other.Value) {
			return false
		}
	}
	return true
}

func show(record Record) string {
	short := func(data []byte) string {
		if data == nil {
			return "null"
		}
		return fmt.Sprintf("%q(%d)", data[:min(len(data), 24)], len(data))
	}
	text := fmt.Sprintf(
		"p%d key=%s value=%s t=%d",
		record.Partition,
		short(record.Key),
		short(record.Value),
		record.TimestampMs,
	)
	for _, header := range record.Headers {
		text += fmt.Sprintf(" %s=%s", header.Name, short(header.Value))
	}
	return text
}

// Problem is what Check and Must raise; Suite.Step turns it into a failed step.
type Problem struct{ message string }

func (problem Problem) Error() string { return problem.message }

// Check ends the step with the message unless the condition holds.
func Check(condition bool, format string, arguments ...any) {
	if !condition {
		panic(Problem{fmt.Sprintf(format, arguments...)})
	}
}

// Must ends the step when there is an error.
func Must(problem error) {
	if problem != nil {
		panic(Problem{fmt.Sprintf("%T: %v", problem, problem)})
	}
}

// Get is Must for a value.
func Get[T any](value T, problem error) T {
	Must(problem)
	return value
}

// Until asks again until attempt answers true; attempt itself may block for a short poll only.
func Until(what string, attempt func() bool) {
	limit := time.Now().Add(StepTime)
	for !attempt() {
		Check(time.Now().Before(limit), "not reached within %v: %s", StepTime, what)
		time.Sleep(10 * time.Millisecond)
	}
}

// Whole returns when the runner kills no broker any more and all are back: before what is asked of a whole cluster.
func Whole() {
	path, several := os.LookupEnv("COMPAT_WHOLE")
	if !several {
		return
	}
	Until("every broker is back", func() bool {
		_, problem := os.Stat(path)
		return problem == nil
	})
}

// Suite is the list of steps of one client and their outcomes.
type Suite struct {
	Client    string
	Version   string
	Bootstrap string
	// Brokers are the addresses in Bootstrap.
	Brokers []string
	// Nodes is the number of brokers of the cluster under test. With several, topics have as many replicas, and
	// producers that can be are idempotent, because the runner kills leaders meanwhile.
	Nodes int

	prefix string
	steps  map[string]string
}

// NewSuite reads the bootstrap address from the environment and starts the watchdog.
func NewSuite(client, module string) *Suite {
	random := make([]byte, 4)
	_, problem := rand.Read(random)
	Must(problem)
	suite := &Suite{
		Client: client, Version: moduleVersion(module), Bootstrap: os.Getenv("BOOTSTRAP"),
		Brokers: strings.Split(os.Getenv("BOOTSTRAP"), ","), Nodes: 1,
		prefix: fmt.Sprintf("compat-%s-%d-%s", client, os.Getpid(), hex.EncodeToString(random)),
		steps:  map[string]string{},
	}
	if nodes := os.Getenv("COMPAT_NODES"); nodes != "" {
		suite.Nodes = Get(strconv.Atoi(nodes))
	}
	time.AfterFunc(watchdogTime, func() { panic(fmt.Sprintf("the suite took longer than %v", watchdogTime)) })
	fmt.Printf("client %s %s\n", client, suite.Version)
	return suite
}

func moduleVersion(module string) string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range build.Deps {
			if dependency.Path == module {
				return dependency.Version
			}
		}
	}
	return "unknown"
}

// Name is a topic or group of this run only.
func (suite *Suite) Name(suffix string) string { return suite.prefix + "-" + suffix }

// Step runs one step; a failure is recorded and printed, and the suite goes on.
func (suite *Suite) Step(name string, body func(ctx context.Context)) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*StepTime)
	defer cancel()
	defer func() {
		problem := recover()
		if problem == nil {
			suite.steps[name] = "pass"
			fmt.Printf("  pass %s (%.1f s)\n", name, time.Since(started).Seconds())
			return
		}
		text := fmt.Sprint(problem)
		suite.steps[name] = "fail: " + text[:min(len(text), 400)]
		fmt.Printf("  FAIL %s: %s\n", name, text)
		if _, ours := problem.(Problem); !ours {
			debug.PrintStack()
		}
	}()
	body(ctx)
}

// Failed says whether step name failed; if so, step then needs it and counts as failed too.
func (suite *Suite) Failed(name, then string) bool {
	if !strings.HasPrefix(suite.steps[name], "fail") {
		return false
	}
	suite.steps[then] = "fail: not run, " + name + " failed"
	fmt.Printf("  FAIL %s: not run, %s failed\n", then, name)
	return true
}

// Lacks records that the client, not the broker, has no such feature.
func (suite *Suite) Lacks(name, reason string) {
	suite.steps[name] = "lacks"
	fmt.Printf("  lacks %s: %s\n", name, reason)
}

// Finish prints the line that the runner collects and leaves the process.
func (suite *Suite) Finish() {
	line := Get(json.Marshal(map[string]any{"client": suite.Client, "version": suite.Version, "steps": suite.steps}))
	fmt.Printf("COMPAT %s\n", line)
	for _, outcome := range suite.steps {
		if strings.HasPrefix(outcome, "fail") {
			os.Exit(1)
		}
	}
	os.Exit(0)
}
