package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// Head is the number and the hash of a record, as they were written to the journal; Seq is
// 0 where only the hash is known.
type Head struct {
	Seq  uint64
	Hash string
}

// headMessage is the message under which the daemon writes a head to the journal.
const headMessage = "audit head"

// Limits of a list of heads: a head a minute for two years, and a line of a journal.
const (
	maxHeads    = 1 << 20
	maxHeadLine = 1 << 20
)

var errNoHead = errors.New("not a head: want its hash, 64 digits 0-9 a-f, after its number if that is known")

// textHead is a head in the daemon's log of texts. What others have a say in is quoted there,
// and cannot look like it.
var textHead = regexp.MustCompile(`(?:^|\s)msg="` + headMessage + `" seq=([0-9]+) hash=([0-9a-f]+)$`)

// ParseHead reads a hash, or a number and a hash with a space between.
func ParseHead(text string) (Head, error) {
	words := strings.Fields(text)
	switch len(words) {
	case 1:
		return headOf("0", words[0])
	case 2:
		h, err := headOf(words[0], words[1])
		if err == nil && h.Seq == 0 {
			err = errNoHead
		}
		return h, err
	}
	return Head{}, errNoHead
}

func headOf(seq, hash string) (Head, error) {
	n, err := strconv.ParseUint(seq, 10, 62)
	if err != nil || !isHash(hash) {
		return Head{}, errNoHead
	}
	return Head{n, hash}, nil
}

// ReadHeads reads a list of heads, a line each: as ParseHead takes them, or as the daemon
// writes them to the journal, in text or JSON, whatever is before them in the line. Other
// lines of the daemon or of journalctl are left out; any other line is an error, for a head
// that is not understood is one that is not looked for.
func ReadHeads(r io.Reader) ([]Head, error) {
	var all []Head
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxHeadLine)
	n := 0
	for in.Scan() {
		n++
		h, err := headLine(strings.TrimSpace(in.Text()))
		if err != nil {
			return nil, fmt.Errorf("read heads, line %d: %w", n, err)
		}
		if h.Hash != "" {
			all = append(all, h)
		}
		if len(all) > maxHeads {
			return nil, fmt.Errorf("read heads: there are more than %d: leave out the oldest", maxHeads)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read heads, line %d: %w", n+1, err)
	}
	return all, nil
}

// headLine gives no head for a line that is known to be none.
func headLine(line string) (Head, error) {
	if m := textHead.FindStringSubmatch(line); m != nil {
		return headOf(m[1], m[2])
	}
	if i := strings.IndexByte(line, '{'); i >= 0 {
		var said struct {
			Msg  string `json:"msg"`
			Seq  uint64 `json:"seq"`
			Hash string `json:"hash"`
		}
		if json.Unmarshal([]byte(line[i:]), &said) == nil && said.Msg != "" {
			if said.Msg != headMessage {
				return Head{}, nil
			}
			return headOf(strconv.FormatUint(said.Seq, 10), said.Hash)
		}
	}
	if line == "" || strings.HasPrefix(line, "-- ") || strings.Contains(line, " msg=") && !strings.Contains(line, ` msg="`+headMessage+`"`) {
		return Head{}, nil
	}
	return ParseHead(line)
}

// knownHeads are the heads that a log is held to.
type knownHeads struct {
	at     map[uint64][]string // by number
	hashes map[string]bool     // of those without: whether it was found
}

func headsOf(heads []Head) knownHeads {
	k := knownHeads{make(map[uint64][]string), make(map[string]bool)}
	for _, h := range heads {
		if h.Seq == 0 {
			k.hashes[h.Hash] = false
		} else if !k.know(h.Seq, h.Hash) {
			k.at[h.Seq] = append(k.at[h.Seq], h.Hash)
		}
	}
	return k
}

func (k *knownHeads) none() bool { return len(k.at)+len(k.hashes) == 0 }

// know tells whether the hash of a record is one of the heads.
func (k *knownHeads) know(seq uint64, hash string) bool {
	if _, ok := k.hashes[hash]; ok {
		return true
	}
	for _, h := range k.at[seq] {
		if h == hash {
			return true
		}
	}
	return false
}

// against gives a head of the same number with another hash.
func (k *knownHeads) against(seq uint64, hash string) string {
	for _, h := range k.at[seq] {
		if h != hash {
			return h
		}
	}
	return ""
}

// met tells how many heads are of a record.
func (k *knownHeads) met(seq uint64, hash string) int {
	n := len(k.at[seq])
	if _, ok := k.hashes[hash]; ok {
		k.hashes[hash] = true
		n++
	}
	return n
}

// missing gives a head each that should be there: of a record before the first that was not
// removed, of one after the last, and a hash that was not found.
func (k *knownHeads) missing(first, removed, last uint64) (older, newer *Head, unmet string) {
	for seq, hashes := range k.at {
		if seq < first && seq > removed && (older == nil || seq < older.Seq) {
			older = &Head{seq, hashes[0]}
		}
		if seq > last && (newer == nil || seq < newer.Seq) {
			newer = &Head{seq, hashes[0]}
		}
	}
	for hash, found := range k.hashes {
		if !found && (unmet == "" || hash < unmet) {
			unmet = hash
		}
	}
	return older, newer, unmet
}

func (k *knownHeads) olderThan(first uint64) int {
	n := 0
	for seq, hashes := range k.at {
		if seq < first {
			n += len(hashes)
		}
	}
	return n
}
