// SPDX-License-Identifier: Apache-2.0

// Package classifier turns samples into verdicts: it finds and opens ONNX
// Runtime's library, checks models against their manifests, runs them over
// packet vectors in batches and combines the results of one flow's samples
// into a verdict.
//
// It is the only package with cgo. ONNX Runtime is opened by [New] and by
// nothing else: programs that link this package start without the library.
package classifier
