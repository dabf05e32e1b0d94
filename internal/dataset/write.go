// SPDX-License-Identifier: Apache-2.0

package dataset

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/internal/bounded"
	"github.com/dpclass/dpclass/internal/capture"
	"github.com/dpclass/dpclass/internal/fault"
	"github.com/dpclass/dpclass/internal/tui"
	"github.com/dpclass/dpclass/internal/vector"
)

// Format is the version of the dataset directory's layout.
const Format = 1

// PerFlow is the default number of payload packets kept from a flow.
const PerFlow = 32

// metaFile marks a directory as a dataset. It is written last.
const metaFile = "meta.json"

// NoClass lists the categories of traffic that has no class. The trainer teaches a model
// to be unsure of it.
var NoClass = []string{"other"}

// Meta is the meta.json of a dataset directory.
type Meta struct {
	Format      int         `json:"format"`
	Vector      int         `json:"vector"`
	Checksums   bool        `json:"checksums"`
	PerFlow     int         `json:"per_flow"` // 0: all
	Source      string      `json:"source"`
	Aggregation Aggregation `json:"aggregation"`
	Packets     int         `json:"packets"`
	Flows       int         `json:"flows"`
	Categories  []string    `json:"categories"` // the numbers in the column are indices
	NoClass     []string    `json:"no_class"`   // the categories that no model has as a class
	Apps        []string    `json:"apps"`       // the numbers in the column are indices
	KnownApps   []string    `json:"known_apps"` // the apps that dpclass has a label for
	Sets        []string    `json:"sets"`
	Captures    []Capture   `json:"captures"`
}

// Aggregation says how the classifier combines the samples of a flow. The trainer reads
// it here and calibrates with the same numbers.
type Aggregation struct {
	Samples int     `json:"samples"` // sample budget of a flow
	Growth  float64 `json:"growth"`  // the temperature is multiplied by samples^growth
	Floor   float64 `json:"floor"`   // lower probabilities are raised to it
}

// BuildOptions configures Build.
type BuildOptions struct {
	Source      string      // where the captures come from, as a note in the dataset
	Checksums   bool        // keep the checksums in the vectors
	PerFlow     int         // payload packets kept from a flow; 0: all
	Aggregation Aggregation // copied to the meta data
	// Warn is called with what is wrong with a capture that is used all the same. It may be
	// nil.
	Warn func(error)
	// Skip is called with each capture that cannot be read, and why. It may be nil.
	Skip func(Capture, error)
	// Progress is called after each capture. It may be nil.
	Progress func(captures, packets int)
}

// Build writes the payload packets of the captures into a dataset directory, one row per
// packet. The directory must be empty or not exist. A capture that cannot be read is
// skipped, and the metadata says so. If Build fails, it leaves nothing behind.
func Build(ctx context.Context, dir string, captures []Capture, options BuildOptions) (*Meta, error) {
	if err := vacant(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o755); err != nil {
		return nil, fmt.Errorf("dataset %q: %w", dir, bounded.Bare(err))
	}
	part, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), "."+filepath.Base(dir)+"-*")
	if err != nil {
		return nil, fmt.Errorf("dataset %q: %w", dir, bounded.Bare(err))
	}
	defer os.RemoveAll(part)

	captures = slices.Clone(captures)
	b := &builder{options: options, columns: map[string]*npyFile{}}
	b.meta = &Meta{
		Format: Format, Vector: vector.Version, Checksums: options.Checksums, PerFlow: options.PerFlow, Source: options.Source,
		Aggregation: options.Aggregation,
		Categories:  names(flow.Categories, captures, func(c Capture) string { return c.Category }),
		NoClass:     NoClass,
		Apps:        names(flow.Apps, captures, func(c Capture) string { return c.App }),
		KnownApps:   flow.Apps,
		Sets:        names(nil, captures, func(c Capture) string { return c.Set }),
		Captures:    captures,
	}
	err = b.open(part)
	for i := 0; err == nil && i < len(captures); i++ {
		if err = ctx.Err(); err != nil {
			break
		}
		err = b.capture(ctx, i)
		if unread := (*Unreadable)(nil); errors.As(err, &unread) {
			b.skip(i, unread.Err)
			err = nil
		}
		if err == nil && options.Progress != nil {
			options.Progress(i+1, b.meta.Packets)
		}
	}
	if closeErr := b.close(); err == nil && closeErr != nil {
		err = fmt.Errorf("dataset %q: %w", dir, closeErr)
	}
	if err != nil {
		return nil, err
	}
	if b.meta.Packets == 0 {
		return nil, fmt.Errorf("dataset %q: no payload packets in %s, nothing was written", dir, tui.Plural(len(captures), "capture"))
	}
	if err := b.finish(part, dir); err != nil {
		return nil, fmt.Errorf("dataset %q: %w", dir, bounded.Bare(err))
	}
	return b.meta, nil
}

// vacant checks that dir is empty or does not exist.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("dataset %q: %w", dir, bounded.Bare(err))
	case len(entries) != 0:
		return fault.Advise(fmt.Errorf("dataset %q: the directory is not empty", dir), "name another directory, or remove this one first")
	}
	return nil
}

// names returns the fixed names, followed by the other names that occur, sorted.
func names(fixed []string, captures []Capture, of func(Capture) string) []string {
	all := slices.Clone(fixed)
	var others []string
	for _, c := range captures {
		if name := of(c); name != "" && !slices.Contains(all, name) && !slices.Contains(others, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return append(all, others...)
}

// builder writes the columns of a dataset, one .npy file each.
type builder struct {
	options BuildOptions
	meta    *Meta
	columns map[string]*npyFile
	vector  [vector.Size]byte
}

func (b *builder) open(dir string) error {
	for _, column := range []struct {
		name, kind string
		width      int
	}{
		{"packet", "|u1", vector.Size},
		{"category", "<i2", 0},
		{"app", "<i2", 0},
		{"flow", "<i4", 0},
		{"capture", "<i4", 0},
		{"set", "<i2", 0},
		{"index", "<i4", 0},
		{"time", "<f8", 0},
		{"length", "<i4", 0},
		{"l4_offset", "<i2", 0},
		{"payload_offset", "<i2", 0},
	} {
		file, err := createNpy(filepath.Join(dir, column.name+".npy"), column.kind, column.width)
		if err != nil {
			return fmt.Errorf("dataset: %w", err)
		}
		b.columns[column.name] = file
	}
	return nil
}

func (b *builder) close() error {
	var err error
	for _, file := range b.columns {
		if closeErr := file.close(); err == nil {
			err = closeErr
		}
	}
	return err
}

// finish writes the metadata and moves the directory to its final place.
func (b *builder) finish(part, dir string) error {
	text, err := json.MarshalIndent(b.meta, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(part, metaFile), append(text, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(part, dir)
}

// Unreadable is the error of a capture of which nothing can be used.
type Unreadable struct{ Err error }

func (e *Unreadable) Error() string { return e.Err.Error() }
func (e *Unreadable) Unwrap() error { return e.Err }

// skip notes a capture that cannot be read.
func (b *builder) skip(number int, err error) {
	from := &b.meta.Captures[number]
	from.Skipped = err.Error()
	if b.options.Skip != nil {
		b.options.Skip(*from, err)
	}
}

// capture adds the packets of one capture.
func (b *builder) capture(ctx context.Context, number int) error {
	from := &b.meta.Captures[number]
	reader, err := capture.Open(from.File)
	if err != nil {
		return &Unreadable{Err: err}
	}
	defer reader.Close()
	walker := NewWalker(reader)
	row := rowOf{
		category: slices.Index(b.meta.Categories, from.Category),
		app:      slices.Index(b.meta.Apps, from.App),
		set:      slices.Index(b.meta.Sets, from.Set),
		capture:  number,
	}
	ids := map[int]int{} // from a flow's number in its file to its id in the dataset
	for count := 0; ; count++ {
		if count%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		step, err := walker.Next()
		var damage *capture.DamageError
		if errors.Is(err, io.EOF) || errors.As(err, &damage) && damage.Packets > 0 {
			b.warn(walker.Warnings()...)
			if damage != nil {
				b.warn(err)
			}
			return nil
		}
		if err != nil {
			return &Unreadable{Err: err}
		}
		if !step.Sampled || (b.options.PerFlow > 0 && step.Flow.Payloads > b.options.PerFlow) {
			continue
		}
		id, known := ids[step.Flow.Number]
		if !known {
			id = b.meta.Flows
			ids[step.Flow.Number] = id
			b.meta.Flows++
			from.Flows++
		}
		row.flow = id
		from.Packets++
		if err := b.add(&step, row, step.Time.Sub(walker.Start()).Seconds()); err != nil {
			return fmt.Errorf("dataset: %w", err)
		}
	}
}

func (b *builder) warn(all ...error) {
	for _, err := range all {
		if b.options.Warn != nil {
			b.options.Warn(err)
		}
	}
}

// rowOf holds the values that all rows of a flow share.
type rowOf struct{ category, app, set, capture, flow int }

func (b *builder) add(step *Step, row rowOf, seconds float64) error {
	vector.Make(&b.vector, step.Data, b.options.Checksums)
	b.meta.Packets++
	var stamp [8]byte
	binary.LittleEndian.PutUint64(stamp[:], math.Float64bits(seconds))
	return errors.Join(
		b.columns["packet"].row(b.vector[:]),
		b.columns["time"].row(stamp[:]),
		b.columns["category"].number(row.category),
		b.columns["app"].number(row.app),
		b.columns["flow"].number(row.flow),
		b.columns["capture"].number(row.capture),
		b.columns["set"].number(row.set),
		b.columns["index"].number(step.Flow.Payloads-1),
		b.columns["length"].number(step.Packet.Length),
		b.columns["l4_offset"].number(min(step.Packet.L4, vector.Size)),
		b.columns["payload_offset"].number(min(step.Packet.VectorPayload(), vector.Size)),
	)
}
