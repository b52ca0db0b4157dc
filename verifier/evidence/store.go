package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/horkos/horkos/state"
	"github.com/horkos/horkos/verifier/image"
)

// StoreOptions are what a Store works with.
type StoreOptions struct {
	Dir  string // of the files; made if it is not there
	Node string // the name of the node, for people who read a file
	Now  func() time.Time
	// OnNode are the images of this node: what is known of them is not given up for others.
	OnNode func() map[image.Identity]bool
	Log    *slog.Logger
}

// Store lets the answers of a Memory last: each is a file of its own that is named by its
// content and written whole. What is lost or broken on disk is asked for again.
type Store struct {
	options StoreOptions
	memory  *Memory

	mu      sync.Mutex
	pending map[Question]bool // to be written
	remove  []string          // files to be removed
	problem string
	wake    chan struct{}
}

// NewStore returns a Store of a memory. Nothing is read before Load, or written before Run.
func NewStore(m *Memory, o StoreOptions) *Store {
	return &Store{options: o, memory: m, pending: make(map[Question]bool), wake: make(chan struct{}, 1)}
}

// Put keeps what a source answered.
func (s *Store) Put(r Record) {
	s.memory.put(&r, s.memory.elapsed())
	s.later(&r.Question)
}

// Fail keeps that a source was asked and failed.
func (s *Store) Fail(q Question, problem string) {
	s.memory.fail(q, problem)
	s.later(nil)
}

// later has the file of an answer written, and makes room where there is too much.
func (s *Store) later(q *Question) {
	var gone []dropped
	if s.memory.full() {
		gone = s.memory.makeRoom(s.options.OnNode())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if q != nil {
		s.pending[*q] = true
	}
	for _, d := range gone {
		if d.file != "" {
			s.remove = append(s.remove, d.file)
		}
		delete(s.pending, d.question)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Problem says why answers do not reach the disk, or is empty.
func (s *Store) Problem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

var recordName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// maxFiles bounds the files that are looked at.
const maxFiles = 2 * maxAnswers

// asideDir is the folder for records of a version that is not known here.
const asideDir = "aside"

// readAhead bounds the files that are read before it is seen whether there is room for more.
const readAhead = 64

// Load reads what is on disk and not known yet, up to the bounds. It only reads where
// another daemon still owns the folder; as its owner it removes what is broken or left over,
// and forgets what the one before has removed. It fails when the folder cannot be read at
// all; with ErrNotExist in the chain when there is none.
func (s *Store) Load(owner bool) error {
	names, useless, err := s.list()
	if err != nil {
		return fmt.Errorf("read the evidence kept in %s: %w", s.options.Dir, err)
	}
	if owner {
		left := make(map[string]bool, len(names))
		for _, name := range names {
			left[name] = true
		}
		s.memory.lose(left)
	}
	known := s.memory.files()
	names = slices.DeleteFunc(names, func(name string) bool { return known[name] })
	answers, broken := 0, []brokenFile(nil)
	for chunk := range slices.Chunk(names, readAhead) {
		if s.memory.full() {
			useless = append(useless, chunk...)
			continue
		}
		loaded, bad := s.read(chunk)
		broken = append(broken, bad...)
		answers += len(loaded)
		for i := range loaded {
			if file := s.take(&loaded[i]); file != "" {
				useless = append(useless, file)
			}
		}
	}
	s.tell(broken)
	if owner {
		s.tidy(broken, useless)
		s.options.Log.Info("evidence is read from disk", "answers", answers, "broken", len(broken))
	}
	return nil
}

// tell logs some of the files that are broken.
func (s *Store) tell(broken []brokenFile) {
	for _, b := range broken[:min(len(broken), 5)] {
		s.options.Log.Warn("evidence on disk cannot be used and is asked for again", "file", s.path(b.name), "error", b.err)
	}
}

// tidy moves records of another version aside, and has what is of no use removed.
func (s *Store) tidy(broken []brokenFile, useless []string) {
	for _, b := range broken {
		if errors.Is(b.err, state.ErrVersion) && s.moveAside(b.name) == nil {
			continue
		}
		useless = append(useless, b.name)
	}
	s.mu.Lock()
	s.remove = append(s.remove, useless...)
	s.mu.Unlock()
	s.flush()
}

func (s *Store) moveAside(name string) error {
	if err := os.MkdirAll(s.path(asideDir), 0o700); err != nil {
		return err
	}
	return os.Rename(s.path(name), filepath.Join(s.path(asideDir), name))
}

// list gives the files of records, and those that a daemon which was killed left behind.
// Others are not ours.
func (s *Store) list() (names, leftovers []string, err error) {
	dir, err := os.Open(s.options.Dir)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	all, err := dir.Readdirnames(maxFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	for _, name := range all {
		switch base, temporary := strings.CutSuffix(name, temporarySuffix); {
		case !recordName.MatchString(base):
		case temporary:
			leftovers = append(leftovers, name)
		default:
			names = append(names, name)
		}
	}
	return names, leftovers, nil
}

type loadedFile struct {
	name   string
	record Record
}

type brokenFile struct {
	name string
	err  error
}

// read reads files on every processor: a node is to be ready soon.
func (s *Store) read(names []string) (loaded []loadedFile, broken []brokenFile) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wait.Go(func() {
			var own []loadedFile
			var bad []brokenFile
			for i := w; i < len(names); i += workers {
				r, err := s.readOne(names[i])
				if err != nil {
					bad = append(bad, brokenFile{names[i], err})
					continue
				}
				own = append(own, loadedFile{names[i], r})
			}
			mu.Lock()
			defer mu.Unlock()
			loaded, broken = append(loaded, own...), append(broken, bad...)
		})
	}
	wait.Wait()
	return loaded, broken
}

func (s *Store) readOne(name string) (Record, error) {
	text, err := readRegular(s.path(name))
	if err != nil {
		return Record{}, err
	}
	return decodeRecord(name, text)
}

func readRegular(path string) ([]byte, error) {
	f, _, err := state.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return state.ReadAtMost(f, maxRecordFile)
}

// maxAge bounds the age of what was on disk: beyond some centuries a duration would be
// less than nothing.
const maxAge = 100 * 365 * 24 * time.Hour

// take puts what was on disk into the memory, and gives the file that is of no use then.
// Its age is by the node's clock; of what is ahead of that nothing is known, and it counts
// as old.
func (s *Store) take(l *loadedFile) (useless string) {
	terms, ok := s.memory.termsOf(l.record.Question)
	if !ok {
		return l.name // of a source that is not configured any more, or is elsewhere
	}
	age := min(s.options.Now().Sub(l.record.Read), maxAge)
	if age < 0 {
		age = max(terms.Fresh, terms.Stale) + 1
	}
	return s.memory.restore(&l.record, s.memory.elapsed()-age, l.name)
}

// batch bounds the files that are brought to the disk together.
const batch = 256

// gather is how long answers are gathered before they are written, retryAfter how long a
// disk that fails is left alone.
const (
	gather     = 50 * time.Millisecond
	retryAfter = 5 * time.Second
)

// Run writes what is to last until the context ends, and then what is left.
func (s *Store) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			s.flush()
			return ctx.Err()
		case <-s.wake:
		}
		pause := gather
		if s.Problem() != "" {
			pause = retryAfter
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		s.flush()
	}
}

// flush removes what is to go and writes what is pending, a batch after the other. Removing
// comes first: what was withdrawn is not to come back, and a full disk needs the room.
func (s *Store) flush() {
	err := s.removeFiles()
	for err == nil {
		s.mu.Lock()
		var questions []Question
		for q := range s.pending {
			if len(questions) == batch {
				break
			}
			questions = append(questions, q)
		}
		s.mu.Unlock()
		if len(questions) == 0 {
			break
		}
		err = errors.Join(s.write(questions), s.removeFiles())
	}
	if err != nil {
		s.fail(fmt.Errorf("write evidence: %w", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem != "" {
		s.options.Log.Info("evidence can be written again")
		s.problem = ""
	}
}

// fail keeps and tells a problem, and has writing tried again.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem != err.Error() {
		s.options.Log.Error("evidence does not reach the disk, and would be lost with the daemon", "error", err)
	}
	s.problem = err.Error()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

const temporarySuffix = ".new"

// write brings a batch to the disk: the new files first, each whole under a temporary
// name, then their names. A stop before the old files go leaves at most both.
func (s *Store) write(questions []Question) error {
	if err := os.MkdirAll(s.options.Dir, 0o700); err != nil {
		return err
	}
	now, elapsed := s.options.Now(), s.memory.elapsed()
	names, reads := make([]string, len(questions)), make([]time.Duration, len(questions))
	var full error
	for i, q := range questions {
		var r Record
		if r, reads[i] = s.memory.record(q); len(r.Attestations) == 0 {
			continue // that there is nothing is asked again; the file of what there was goes
		}
		if full != nil {
			continue
		}
		r.Read = now.Add(reads[i] - elapsed)
		name, text, err := encodeRecord(&r, s.options.Node)
		if err != nil {
			s.options.Log.Error("evidence about an image cannot be kept, and is asked for again after a restart", "image", q.Identity.String(), "error", err)
			continue
		}
		if full = state.WriteSynced(s.path(name)+temporarySuffix, text); full != nil {
			_ = os.Remove(s.path(name) + temporarySuffix) // a full disk needs the room
			continue
		}
		names[i] = name
	}
	return errors.Join(full, s.name(questions, names, reads, full == nil))
}

// name gives the files of a batch their names and notes them. Where not all could be
// written only those that were are, and those that are to go.
func (s *Store) name(questions []Question, names []string, reads []time.Duration, all bool) error {
	for _, name := range names {
		if name == "" {
			continue
		}
		if err := os.Rename(s.path(name)+temporarySuffix, s.path(name)); err != nil {
			return err
		}
	}
	if err := state.SyncFolder(s.options.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range questions {
		if names[i] == "" && !all && s.memory.holds(q) {
			continue // it waits for room, and what is on disk of it stays
		}
		before, current := s.memory.filed(q, names[i], reads[i])
		if before != "" && before != names[i] {
			s.remove = append(s.remove, before)
		}
		if current {
			delete(s.pending, q)
		}
	}
	return nil
}

func (s *Store) path(name string) string { return filepath.Join(s.options.Dir, name) }

// removeFiles removes what is to go. What cannot be removed stays to be.
func (s *Store) removeFiles() error {
	s.mu.Lock()
	names := s.remove
	s.remove = nil
	s.mu.Unlock()
	var left []string
	var failed error
	for _, name := range names {
		if err := os.RemoveAll(s.path(name)); err != nil {
			left, failed = append(left, name), err
		}
	}
	if left != nil {
		s.mu.Lock()
		s.remove = append(left, s.remove...)
		s.mu.Unlock()
	}
	return failed
}
