// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/lab"
)

// testLog has the reader of the flow log stop reading, and go away: neither keeps
// the agent from its work and from detaching.
func testLog(t *testing.T, s *suite) {
	for _, test := range []struct {
		name   string
		reader func(*os.File) error
		log    []string
	}{
		{"Stalled", func(*os.File) error { return nil }, []string{"not finished in time"}},
		{"Gone", (*os.File).Close, []string{"broken pipe", "lost 50 of 50 flow records"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, _ := pair(t, false)
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			// A page: a few records fill it.
			if _, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
				t.Fatal(err)
			}
			cmd, err := near.Command(testContext(t), s.binary, "attach", "lo", "--mode", "tc", "--no-classify", "--log-format", "json")
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout, cmd.Env = writer, s.env()
			p, err := near.StartCommand(cmd)
			if err != nil {
				t.Fatal(err)
			}
			if err := writer.Close(); err != nil {
				t.Fatal(err)
			}
			if err := lab.Until(testContext(t), "ready", func() (bool, error) { return s.run(t, near, "status", "lo").code == cli.ExitDone, nil }); err != nil {
				t.Fatal(err)
			}
			if err := test.reader(reader); err != nil {
				t.Fatal(err)
			}
			err = near.Do(func() error {
				for range 50 { // refused: SYN and RST are a flow
					if conn, err := net.DialTimeout("tcp", "127.0.0.1:9", time.Second); err == nil {
						conn.Close()
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := lab.Until(testContext(t), "the flows end", func() (bool, error) { return s.status(t, near, "lo").Ended == 50, nil }); err != nil {
				t.Fatal(err)
			}
			if err := p.Signal(unix.SIGTERM); err != nil {
				t.Fatalf("%v: %s", err, p.Output())
			}
			select {
			case <-p.Done():
			case <-testContext(t).Done():
				t.Fatalf("the agent does not end: %s", p.Output())
			}
			if err := p.Wait(); err != nil {
				t.Errorf("%v: %s", err, p.Output())
			}
			noPins(t)
			log := p.Output()
			detached := strings.Index(log, `"detached"`)
			for _, want := range append(test.log, "the flow log is not complete") {
				if !strings.Contains(log, want) {
					t.Errorf("no %q in %s", want, log)
				}
			}
			if end := strings.Index(log, "the flow log is not complete"); detached < 0 || end < detached {
				t.Errorf("the agent is to detach before it ends the log: %s", log)
			}
		})
	}
}
