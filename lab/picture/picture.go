// SPDX-License-Identifier: Apache-2.0

// Package picture turns what a program wrote to a terminal into an SVG picture. Text
// and colours are kept; the alternate screen is left out, as in a terminal's
// scroll-back.
package picture

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Part says which part of the output becomes a picture.
type Part struct {
	From  string // begin with the line that contains this; "": with the first
	To    string // end before the line that contains this; "": after the last
	Width int    // columns; longer lines are cut
	Note  string // kept in the picture, unseen: see [Origin]
}

// Draw reads the output and writes the picture.
func (p Part) Draw(in io.Reader, out io.Writer) error {
	data, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	lines := pick(clean(string(data)), p.From, p.To)
	if len(lines) == 0 {
		return fmt.Errorf("no line contains %q", p.From)
	}
	w := bufio.NewWriter(out)
	draw(w, lines, p.Width, p.Note)
	return w.Flush()
}

var (
	otherScreen = regexp.MustCompile(`(?s)\x1b\[\?1049h.*?\x1b\[\?1049l`)
	colour      = regexp.MustCompile(`\x1b\[([\d;]*)m`)
	escape      = regexp.MustCompile(`\x1b\[[?\d;]*[A-Za-ln-z]|\x1b\][^\x07]*\x07|\r`)
)

func clean(text string) []string {
	text = escape.ReplaceAllString(otherScreen.ReplaceAllString(text, ""), "")
	return strings.Split(strings.Trim(text, "\n"), "\n")
}

// pick returns the lines from one text to another.
func pick(lines []string, from, to string) []string {
	begun := from == ""
	var picked []string
	for _, line := range lines {
		plain := colour.ReplaceAllString(line, "")
		if !begun && strings.Contains(plain, from) {
			begun = true
		} else if begun && to != "" && strings.Contains(plain, to) {
			break
		}
		if begun {
			picked = append(picked, line)
		}
	}
	for len(picked) > 0 && strings.TrimSpace(picked[len(picked)-1]) == "" {
		picked = picked[:len(picked)-1]
	}
	return picked
}

// The sizes of a character cell, in SVG units.
const (
	cellWidth, cellHeight, margin = 8.0, 18.0, 14.0
)

// palette has the terminal's colours 30 to 37 and 90 to 97.
var palette = map[string]string{
	"30": "#484f58", "31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea", "37": "#c9d1d9",
	"90": "#8b949e", "91": "#ffa198", "92": "#aff5b4", "93": "#f2cc60", "94": "#a5d6ff", "95": "#e2c5ff", "96": "#b3f0ff", "97": "#ffffff",
}

func draw(w io.Writer, lines []string, width int, note string) {
	columns := 0
	for _, line := range lines {
		columns = max(columns, min(width, utf8.RuneCountInString(colour.ReplaceAllString(line, ""))))
	}
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="13">`+"\n",
		float64(columns)*cellWidth+2*margin, float64(len(lines))*cellHeight+2*margin)
	if note != "" {
		fmt.Fprintf(w, "<desc>%s</desc>\n", html.EscapeString(note))
	}
	fmt.Fprintln(w, `<rect width="100%" height="100%" rx="8" fill="#0d1117"/>`)
	style := ""
	for i, line := range lines {
		fmt.Fprintf(w, `<text y="%.0f" xml:space="preserve" fill="#c9d1d9">`, margin+float64(i+1)*cellHeight-5)
		column := 0
		write := func(text string) {
			runes := []rune(text)
			runes = runes[:min(len(runes), max(0, width-column))]
			if len(runes) == 0 {
				return
			}
			// The length keeps columns straight in any font.
			fmt.Fprintf(w, `<tspan x="%.0f" textLength="%.0f" lengthAdjust="spacingAndGlyphs"%s>%s</tspan>`, margin+float64(column)*cellWidth,
				float64(len(runes))*cellWidth, style, html.EscapeString(string(runes)))
			column += len(runes)
		}
		at := 0
		for _, match := range colour.FindAllStringSubmatchIndex(line, -1) {
			write(line[at:match[0]])
			style = restyle(style, line[match[2]:match[3]])
			at = match[1]
		}
		write(line[at:])
		fmt.Fprintln(w, `</text>`)
	}
	fmt.Fprintln(w, `</svg>`)
}

// restyle returns the style after a select-graphic-rendition sequence (ECMA-48).
func restyle(style, codes string) string {
	for _, code := range strings.Split(codes, ";") {
		switch {
		case code == "" || code == "0":
			style = ""
		case code == "1":
			style = ` font-weight="bold"` + strings.ReplaceAll(style, ` font-weight="bold"`, "")
		case code == "2":
			style += ` fill-opacity="0.6"`
		case code == "39":
			style = fill.ReplaceAllString(style, "")
		case palette[code] != "":
			style = fill.ReplaceAllString(style, "") + fmt.Sprintf(` fill="%s"`, palette[code])
		}
	}
	return style
}

var fill = regexp.MustCompile(` fill="[^"]*"`)
