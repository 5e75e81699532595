package term

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// Column is one column of a table.
type Column struct {
	Name string
	// Wide columns are printed only when asked for.
	Wide bool
	// Right aligns numbers.
	Right bool
	// Color chooses a style by value; nil or "" means none.
	Color func(value string) Color
}

// Table is rows under named columns, as kubectl prints them.
type Table struct {
	Columns []Column
	rows    [][]string
}

// Add appends a row, one value per column; values are made safe for a terminal.
func (t *Table) Add(values ...string) {
	row := make([]string, len(t.Columns))
	for i := range row {
		if i < len(values) {
			row[i] = Clean(values[i])
		}
	}
	t.rows = append(t.rows, row)
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Write prints the table to w: the header, then the rows.
func (t *Table) Write(w io.Writer, ui *UI, wide bool) error {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = utf8.RuneCountInString(c.Name)
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	out := bufio.NewWriter(w)
	header := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		header[i] = c.Name
	}
	t.writeRow(out, header, widths, wide, func(_ int, padded, _ string) string { return ui.Style(ui.ColorOut, Bold, padded) })
	for _, row := range t.rows {
		t.writeRow(out, row, widths, wide, func(column int, padded, value string) string {
			if pick := t.Columns[column].Color; pick != nil && ui.ColorOut {
				if c := pick(value); c != "" {
					return ui.Style(true, c, padded)
				}
			}
			return padded
		})
	}
	return out.Flush()
}

func (t *Table) writeRow(out *bufio.Writer, row []string, widths []int, wide bool, style func(column int, padded, value string) string) {
	last := -1
	for i, c := range t.Columns {
		if !c.Wide || wide {
			last = i
		}
	}
	for i, c := range t.Columns {
		if c.Wide && !wide {
			continue
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(row[i]))
		switch {
		case c.Right:
			out.WriteString(style(i, pad+row[i], row[i]))
		case i == last:
			out.WriteString(style(i, row[i], row[i]))
		default:
			out.WriteString(style(i, row[i]+pad, row[i]))
		}
		if i != last {
			out.WriteString("   ")
		}
	}
	out.WriteByte('\n')
}
