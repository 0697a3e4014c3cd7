package prove

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Canary is a secret that the check planted and then looks for: Name says what it
// was (an object's bytes, a bucket's name), Secret is at least 12 bytes, so that
// it cannot be met by chance.
type Canary struct {
	Name   string
	Secret []byte
}

// Sighting is a canary found where it must not be.
type Sighting struct {
	Canary, Form, File string
	Offset             int64
}

// Searched is what a canary search covered.
type Searched struct {
	Files     int
	Bytes     int64
	Forms     int
	Sightings []Sighting
}

// needle is one form that a canary may take on disk.
type needle struct {
	canary, form string
	bytes        []byte
}

// needles returns every form searched for: raw, in hexadecimal, in base64 at
// each of the three alignments, percent-encoded, as UTF-16, and reversed.
func needles(canaries []Canary) []needle {
	var out []needle
	for _, c := range canaries {
		add := func(form string, b []byte) {
			for _, n := range out {
				if n.canary == c.Name && bytes.Equal(n.bytes, b) {
					return
				}
			}
			out = append(out, needle{c.Name, form, b})
		}
		add("raw", c.Secret)
		add("hex", []byte(hex.EncodeToString(c.Secret)))
		add("HEX", []byte(strings.ToUpper(hex.EncodeToString(c.Secret))))
		for shift := range 3 {
			// Bytes before the canary move it inside its base64 group: encode
			// with a pad in front, then cut what depends on the neighbours.
			enc := base64.StdEncoding.EncodeToString(append(make([]byte, shift), c.Secret...))
			first := (shift*8 + 5) / 6
			whole := (shift + len(c.Secret)) * 8 / 6
			add("base64", []byte(enc[first:whole]))
			urlsafe := strings.NewReplacer("+", "-", "/", "_").Replace(enc[first:whole])
			add("base64url", []byte(urlsafe))
		}
		add("percent-encoded", []byte(url.PathEscape(string(c.Secret))))
		wide := make([]byte, 0, 2*len(c.Secret))
		for _, b := range c.Secret {
			wide = append(wide, b, 0)
		}
		add("UTF-16", wide)
		reversed := bytes.Clone(c.Secret)
		for i, j := 0, len(reversed)-1; i < j; i, j = i+1, j-1 {
			reversed[i], reversed[j] = reversed[j], reversed[i]
		}
		add("reversed", reversed)
	}
	return out
}

// Search reads every regular file under the directories, whole, and every file
// and directory name, and reports each place where a canary stands in any form.
// Files that vanish during the search are passed over; any other error ends it,
// since what was not read was not proved.
func Search(ctx context.Context, dirs []string, canaries []Canary) (Searched, error) {
	forms := needles(canaries)
	found := Searched{Forms: len(forms)}
	longest := 0
	for _, n := range forms {
		longest = max(longest, len(n.bytes))
	}
	buf := make([]byte, 1<<20+longest)
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			for _, n := range forms {
				if strings.Contains(d.Name(), string(n.bytes)) {
					found.Sightings = append(found.Sightings, Sighting{n.canary, n.form + " in a file name", path, -1})
				}
			}
			if !d.Type().IsRegular() {
				return nil
			}
			return searchFile(path, forms, buf, longest, &found)
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

func searchFile(path string, forms []needle, buf []byte, longest int, found *Searched) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	found.Files++
	var base int64 // file offset of buf[0]
	kept := 0      // bytes carried over from the last window
	for {
		n, err := io.ReadFull(f, buf[kept:])
		window := buf[:kept+n]
		found.Bytes += int64(n)
		for _, nd := range forms {
			if i := bytes.Index(window, nd.bytes); i >= 0 {
				s := Sighting{nd.canary, nd.form, path, base + int64(i)}
				if len(found.Sightings) == 0 || found.Sightings[len(found.Sightings)-1] != s {
					found.Sightings = append(found.Sightings, s)
				}
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
		carry := min(longest-1, len(window))
		copy(buf, window[len(window)-carry:])
		base += int64(len(window) - carry)
		kept = carry
	}
}
