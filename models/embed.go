// SPDX-License-Identifier: Apache-2.0

// Package models holds the networks that are shipped in the binary: a NAME.onnx
// and its manifest NAME.json for each.
package models

import "embed"

// Files are the shipped models.
//
//go:embed *.onnx *.json
var Files embed.FS
