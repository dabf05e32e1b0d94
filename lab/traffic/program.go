// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/dpclass/dpclass/internal/fault"
)

// Program is a client program, its server and the way people use them. Each is defined
// in one file, which adds it to the list with register.
type Program struct {
	Name     string // unique, in lower case
	Category string // a category of flow/labels.txt
	App      string // the corpus's column app
	Needs    []Need // what must be installed
	Version  string // command that prints the version of the client, for example "curl --version"; "module PATH" for a Go module
	Quick    bool   // part of a quick run; each category should have a program that is
	Clients  int    // most clients of a round; 0: three
	Peers    int    // hosts on the servers' side; 0: one
	OneLink  bool   // no router is between clients and servers, and there are no tunnels

	// Start starts the servers and returns what a client does in one session. It returns
	// when the servers accept connections.
	Start func(ctx context.Context, r *Round) (Session, error)
}

// Session is one use of the program by one client, from its start to its end: a visit to a
// site, a login, a call. It is called again, after a pause, until the round is over;
// then its context ends, and what it returns is ignored.
type Session func(ctx context.Context, c *Client) error

// Need is an executable, or a file if it begins with "/", and the Debian package that
// has it.
type Need struct{ File, Package string }

// searchPath is the PATH of the programs, whoever starts the lab.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games"

var registered []*Program

// register adds programs to the list. Each file calls it for the value of a variable
// without a name, so that a program is in one file only.
func register(programs ...*Program) struct{} {
	registered = append(registered, programs...)
	return struct{}{}
}

// Programs returns all programs, sorted by category and name.
func Programs() []*Program {
	programs := slices.Clone(registered)
	slices.SortFunc(programs, func(a, b *Program) int {
		return strings.Compare(a.Category+" "+a.Name, b.Category+" "+b.Name)
	})
	return programs
}

// missing returns an error that names the needs that are not installed, with the command
// that installs them as advice. It returns nil if there are none.
func missing(needs []Need) error {
	var files, packages []string
	for _, need := range needs {
		if installed(need.File) != "" {
			continue
		}
		files = append(files, need.File)
		if !slices.Contains(packages, need.Package) {
			packages = append(packages, need.Package)
		}
	}
	if files == nil {
		return nil
	}
	return fault.Advise(fmt.Errorf("%s: %w", strings.Join(files, ", "), errMissing), "apt-get install %s", strings.Join(packages, " "))
}

var errMissing = errors.New("not installed")

// Missing returns why the program cannot run here, with advice, or nil.
func (p *Program) Missing() error {
	if err := missing(p.Needs); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return nil
}

// heavy reports whether a round needs much of the CPU: it has browsers or graphics.
func (p *Program) heavy() bool {
	return slices.ContainsFunc(p.Needs, func(n Need) bool {
		return slices.Contains([]string{"chromium", "firefox-esr", "Xvfb"}, filepath.Base(n.File))
	})
}

// MissingPackages returns the Debian packages that the programs and tunnels need and that
// are not installed, sorted; for a quick run, only of those that it may use.
func MissingPackages(quick bool) []string {
	var names []string
	add := func(needs []Need) {
		for _, need := range needs {
			if installed(need.File) == "" {
				names = append(names, need.Package)
			}
		}
	}
	for _, p := range registered {
		if p.Quick || !quick {
			add(p.Needs)
		}
	}
	for _, t := range tunnels {
		if !t.slow || !quick {
			add(t.needs)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// installed returns the path of an executable or file, or "".
func installed(file string) string {
	if strings.HasPrefix(file, "/") {
		if found, _ := filepath.Glob(file); len(found) > 0 {
			return found[0]
		}
		return ""
	}
	for _, dir := range filepath.SplitList(searchPath) {
		path := filepath.Join(dir, file)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+[-\w.]*`)

// version runs a command such as "curl --version" and returns the first version number in
// its output, or "" if there is none.
func version(ctx context.Context, command string) string {
	words := strings.Fields(command)
	if len(words) == 0 {
		return ""
	}
	if words[0] == "module" {
		return moduleVersion(words[1])
	}
	path := installed(words[0])
	if path == "" {
		return ""
	}
	// Some programs print their version and fail.
	out, _ := exec.CommandContext(ctx, path, words[1:]...).CombinedOutput()
	return versionNumber.FindString(string(out))
}

// moduleVersion returns the version of a Go module that is part of this program, or "".
func moduleVersion(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return strings.TrimPrefix(dependency.Version, "v")
			}
		}
	}
	return ""
}
