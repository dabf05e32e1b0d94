// SPDX-License-Identifier: Apache-2.0

// Package models holds the network that is built into the binary: default.onnx and
// its manifest default.json. The networks of the paper, in paper/, are installed as
// files instead.
package models

import "embed"

// Files are the files of the default model.
//
//go:embed default.onnx default.json
var Files embed.FS
