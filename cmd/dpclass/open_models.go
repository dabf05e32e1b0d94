// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/classifier/model"
	"github.com/dpclass/dpclass/classifier/ort"
	"github.com/dpclass/dpclass/cmd/dpclass/internal/offline"
	"github.com/dpclass/dpclass/internal/cli"
)

// loadModels loads the models of a command line: those that were named, else those of
// "dpclass models use", else the default.
func loadModels(named []string) ([]*model.Model, error) {
	names, err := cli.ModelsOr(named)
	if err != nil {
		return nil, err
	}
	return model.LoadAll(names)
}

// openModels opens models and the catalogue of names to read captures with.
func openModels(g *cli.Globals, models []string, names *nameFiles, options classifier.Options) (*offline.Reader, error) {
	loaded, err := loadModels(models)
	if err != nil {
		return nil, err
	}
	if options.Names, err = names.load(); err != nil {
		return nil, err
	}
	options.Library, options.Models = g.Library, loaded
	return offline.Open(options)
}

// runModels opens models that are used together and runs each once; it returns ONNX
// Runtime's release.
func runModels(models []*model.Model, library string) (string, error) {
	c, err := classifier.New(classifier.Options{Library: library, Models: models, Workers: 1})
	if err != nil {
		return "", err
	}
	if err := c.Close(); err != nil {
		return "", err
	}
	return ort.Version(library)
}

// completeModels completes names of models, and files.
var completeModels = cli.CompleteNamesAndFiles(func() []string { return model.Shipped() })
