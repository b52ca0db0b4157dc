package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// columns is how wide a tree is drawn: what fits any terminal, log and mail.
const columns = 80

// branch is a node of a tree: a text, remarks below it, and what hangs on it.
type branch struct {
	text    string
	remarks []string
	under   []*branch
}

func (b *branch) add(text string, remarks ...string) *branch {
	n := &branch{text: text}
	for _, r := range remarks {
		n.remark(r)
	}
	b.under = append(b.under, n)
	return n
}

func (b *branch) remark(text string) {
	if text != "" {
		b.remarks = append(b.remarks, text)
	}
}

// draw writes a tree in lines of at most columns characters.
func draw(w io.Writer, root *branch) error {
	for _, line := range root.lines("", "") {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

// lines are those of a branch; first stands before its first line, rest before all others.
func (b *branch) lines(first, rest string) []string {
	below := rest + "  "
	if len(b.under) > 0 {
		below = rest + "│ "
	}
	var lines []string
	prefix := first
	for i, text := range append([]string{b.text}, b.remarks...) {
		indent := 2 // of the lines that go on
		if i > 0 {
			indent = 0
		}
		for n, part := range wrap(printable(text), columns-utf8.RuneCountInString(below)-indent) {
			if n > 0 {
				part = strings.Repeat(" ", indent) + part
			}
			lines = append(lines, prefix+part)
			prefix = below
		}
	}
	for i, u := range b.under {
		if i < len(b.under)-1 {
			lines = append(lines, u.lines(rest+"├─ ", rest+"│  ")...)
		} else {
			lines = append(lines, u.lines(rest+"└─ ", rest+"   ")...)
		}
	}
	return lines
}

// wrap breaks a text into lines of at most width characters: at spaces and, in words that
// are longer than a line, after a character at which names part, or anywhere.
func wrap(text string, width int) []string {
	width = max(width, 16)
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width {
			line += " " + word
			continue
		}
		if room := width - utf8.RuneCountInString(line) - 1; line != "" && utf8.RuneCountInString(word) > width && room > width/2 {
			head := breakWord(word, room)
			line, word = line+" "+head, word[len(head):]
		}
		if line != "" {
			lines = append(lines, line)
		}
		for utf8.RuneCountInString(word) > width {
			head := breakWord(word, width)
			lines = append(lines, head)
			word = word[len(head):]
		}
		line = word
	}
	return append(lines, line)
}

// breakWord is as much of the beginning of a word as fits.
func breakWord(word string, width int) string {
	fits := string([]rune(word)[:width])
	for _, seams := range []string{"@", "/:;,."} { // a digest in one piece, if it can be
		if i := strings.LastIndexAny(fits, seams); i >= len(fits)/3 {
			return fits[:i+1]
		}
	}
	return fits
}
