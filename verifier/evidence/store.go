package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// Load reads what is on disk and not known yet. It only reads where another daemon still
// owns the folder; as its owner it removes what is broken or left over. It fails when the
// folder cannot be read at all; with ErrNotExist in the chain when there is none.
func (s *Store) Load(owner bool) error {
	names, leftovers, err := s.list()
	if err != nil {
		return fmt.Errorf("read the evidence kept in %s: %w", s.options.Dir, err)
	}
	known := s.memory.files()
	names = slices.DeleteFunc(names, func(name string) bool { return known[name] })
	loaded, broken := s.read(names)
	for i := range loaded {
		if useless := s.take(&loaded[i]); useless != "" {
			leftovers = append(leftovers, useless)
		}
	}
	for _, b := range broken[:min(len(broken), 5)] {
		s.options.Log.Warn("evidence on disk is broken and asked for again", "file", filepath.Join(s.options.Dir, b.name), "error", b.err)
	}
	for _, b := range broken {
		leftovers = append(leftovers, b.name)
	}
	if !owner {
		return nil
	}
	if err := s.removeFiles(leftovers); err != nil {
		s.fail(fmt.Errorf("remove evidence that is broken or left over: %w", err))
	}
	s.options.Log.Info("evidence is read from disk", "answers", len(loaded), "broken", len(broken))
	return nil
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

// take puts what was on disk into the memory, and gives the file that is of no use then.
// Its age is by the node's clock; of what is ahead of that nothing is known, and it counts
// as old.
func (s *Store) take(l *loadedFile) (useless string) {
	terms, ok := s.memory.termsOf(l.record.Question)
	if !ok {
		return l.name // of a source that is not configured any more, or is elsewhere
	}
	age := s.options.Now().Sub(l.record.Read)
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

// flush writes what is pending, a batch after the other.
func (s *Store) flush() {
	for {
		s.mu.Lock()
		var questions []Question
		for q := range s.pending {
			if len(questions) == batch {
				break
			}
			questions = append(questions, q)
		}
		remove := s.remove
		s.mu.Unlock()
		if len(questions) == 0 && len(remove) == 0 {
			return
		}
		if err := s.write(questions, remove); err != nil {
			s.fail(fmt.Errorf("write evidence: %w", err))
			return
		}
		s.mu.Lock()
		s.remove = s.remove[len(remove):]
		if s.problem != "" {
			s.options.Log.Info("evidence can be written again")
			s.problem = ""
		}
		s.mu.Unlock()
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
// name, then their names, then the old files go. A stop in between leaves at most both.
func (s *Store) write(questions []Question, remove []string) error {
	if err := os.MkdirAll(s.options.Dir, 0o700); err != nil {
		return err
	}
	now, elapsed := s.options.Now(), s.memory.elapsed()
	names, reads := make([]string, len(questions)), make([]time.Duration, len(questions))
	for i, q := range questions {
		var r Record
		if r, reads[i] = s.memory.record(q); len(r.Attestations) == 0 {
			continue // that there is nothing is asked again
		}
		r.Read = now.Add(reads[i] - elapsed)
		name, text, err := encodeRecord(&r, s.options.Node)
		if err != nil {
			return err
		}
		temporary := s.path(name) + temporarySuffix
		_ = os.Remove(temporary) // of a batch that failed
		if err := state.WriteSynced(temporary, text); err != nil {
			_ = os.Remove(temporary) // a full disk needs the room
			return err
		}
		names[i] = name
	}
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
	return s.removeFiles(append(s.filed(questions, names, reads), remove...))
}

func (s *Store) path(name string) string { return filepath.Join(s.options.Dir, name) }

// filed notes where answers are now, and gives the files that had them before.
func (s *Store) filed(questions []Question, names []string, reads []time.Duration) (old []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range questions {
		before, current := s.memory.filed(q, names[i], reads[i])
		if before != "" && before != names[i] {
			old = append(old, before)
		}
		if current {
			delete(s.pending, q)
		}
	}
	return old
}

func (s *Store) removeFiles(names []string) error {
	for _, name := range names {
		if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
