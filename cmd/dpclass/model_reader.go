// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/internal/cli"
	"github.com/dpclass/dpclass/internal/confine"
	"github.com/dpclass/dpclass/internal/fault"
)

// modelReader is a process that reads models for a confined agent, which may not open
// files. It gives the agent no choice: each request gets the models of the agent's command
// line, else those of "dpclass models use". It runs no network.
type modelReader struct {
	process *exec.Cmd
	mu      sync.Mutex // held during a request
	ask     io.WriteCloser
	answers *gob.Decoder
}

// modelReaderVerb is the verb of that process. It is not for people.
const modelReaderVerb = "read-models"

// modelAnswer is the answer to a request.
type modelAnswer struct {
	Models []model.Stored
	Error  string // "": none
	Advice []string
}

// startModelReader starts the process. It ends with this one, however that ends.
func startModelReader(named []string) (*modelReader, error) {
	args := []string{modelReaderVerb}
	for _, name := range named {
		args = append(args, "--model", name)
	}
	r := &modelReader{process: exec.Command("/proc/self/exe", args...)}
	r.process.Args[0] = os.Args[0]
	r.process.Stderr = os.Stderr // why it ended
	ask, err := r.process.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("process that reads models: %w", err)
	}
	answers, err := r.process.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("process that reads models: %w", err)
	}
	if err := r.process.Start(); err != nil {
		return nil, fmt.Errorf("process that reads models: %w", err)
	}
	r.ask, r.answers = ask, gob.NewDecoder(answers)
	return r, nil
}

// load returns the models, read now.
func (r *modelReader) load() ([]*model.Model, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var answer modelAnswer
	_, err := r.ask.Write([]byte{'\n'})
	if err == nil {
		err = r.answers.Decode(&answer)
	}
	if err != nil {
		return nil, fault.Advise(fmt.Errorf("the process that reads models has ended: %w", err), "attach again; if that does not help, use --no-sandbox")
	}
	if answer.Error != "" {
		err := errors.New(answer.Error)
		for _, advice := range slices.Backward(answer.Advice) { // the outermost comes first
			err = fault.Advise(err, "%s", advice)
		}
		return nil, err
	}
	var models []*model.Model
	for _, stored := range answer.Models {
		models = append(models, model.Restore(stored))
	}
	return models, nil
}

// close ends the process. How it ended says nothing about the agent.
func (r *modelReader) close() error {
	err := r.ask.Close()
	_ = r.process.Wait()
	return err
}

func newModelReaderCommand(g *cli.Globals) *cobra.Command {
	var named []string
	cmd := &cobra.Command{
		Use:    modelReaderVerb,
		Short:  "Read models for \"dpclass attach\", which starts this itself",
		Hidden: true,
		Args:   cli.Exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// It ends when the agent does, after it, and not by the same Ctrl-C.
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
			if g.Alone {
				// Root may read what users keep to themselves, as it does without a sandbox.
				if _, err := confine.Capabilities(unix.CAP_DAC_READ_SEARCH); err != nil {
					return err
				}
				if _, err := confine.Files(confine.Paths{Read: []string{"/"}}); err != nil {
					return err
				}
			}
			return readModels(cmd.InOrStdin(), cmd.OutOrStdout(), named)
		},
	}
	cmd.Flags().StringArrayVar(&named, "model", nil, "`NAME` or FILE of a model")
	return cmd
}

// readModels answers each byte of in with the models, until it ends.
func readModels(in io.Reader, out io.Writer, named []string) error {
	answers := gob.NewEncoder(out)
	request := make([]byte, 1)
	for {
		if _, err := io.ReadFull(in, request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("request for models: %w", err)
		}
		if err := answers.Encode(answerModels(named)); err != nil {
			return fmt.Errorf("send models: %w", err)
		}
		debug.FreeOSMemory() // the next request may come in months
	}
}

func answerModels(named []string) (answer modelAnswer) {
	models, err := loadModels(named)
	if err != nil {
		answer.Error, answer.Advice = err.Error(), fault.Advice(err)
	}
	for _, m := range models {
		answer.Models = append(answer.Models, m.Store())
	}
	return answer
}
